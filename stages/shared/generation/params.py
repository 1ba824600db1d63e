"""The section that says which engine runs; without torch, so that params.yaml can be checked in a moment."""

from typing import Literal

from pydantic import Field

from stages.shared.core.params import Section


class EngineParams(Section):
    """How completions are generated. Prompt and completion together may have max_model_len tokens."""

    kind: Literal["transformers", "vllm"] = "transformers"
    batch_size: int = Field(128, ge=1, description="completions decoded at once")
    max_model_len: int = Field(1024, ge=16, description="tokens of prompt and completion together (vllm)")
    tensor_parallel: int = Field(1, ge=1, description="GPUs one model is spread over (vllm)")
    kv_cache_gb: float = Field(1.0, gt=0, description="memory for keys and values on a CPU (vllm)")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="transformers only; vllm runs on what it was built for")
