"""Section `embed` of params.yaml."""

from typing import Literal

from pydantic import Field

from stages.shared.params import ComputeSection

PACKAGED = "packaged-minilm"


class EmbedParams(ComputeSection):
    threads: int = Field(1, ge=1, description="threads of torch, BLAS and OpenMP")
    model: str = Field(PACKAGED, description=f"{PACKAGED}, or a folder with a sentence-transformers model (modules.json)")
    instruction: str = Field("", description="put before every text, as instruction-tuned models such as Qwen3-Embedding expect")
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of the model's weights; the output is always float32")
    batch_size: int = Field(64, ge=1)
