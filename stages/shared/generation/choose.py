"""Which engine runs: the section that says so, and the one function that opens it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field

from stages.shared.core.device import device_of
from stages.shared.core.params import Section
from stages.shared.generation.base import Engine
from stages.shared.generation.transformers_engine import TransformersEngine
from stages.shared.generation.vllm_engine import VllmEngine
from stages.shared.lm.models import load_model, load_tokenizer


class EngineParams(Section):
    """How completions are generated. Prompt and completion together may have max_model_len tokens."""

    kind: Literal["transformers", "vllm"] = "transformers"
    batch_size: int = Field(128, ge=1, description="completions decoded at once")
    max_model_len: int = Field(1024, ge=16, description="tokens of prompt and completion together (vllm)")
    tensor_parallel: int = Field(1, ge=1, description="GPUs one model is spread over (vllm)")
    kv_cache_gb: float = Field(1.0, gt=0, description="memory for keys and values on a CPU (vllm)")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="transformers only; vllm runs on what it was built for")


@contextmanager
def open_engine(params: EngineParams, folder: Path, seed: int = 0, threads: int = 1) -> Iterator[Engine]:
    """The engine on the model at `folder`; its memory is free again when the block ends."""
    tokenizer = load_tokenizer(folder)
    if params.kind == "vllm":
        engine: VllmEngine | TransformersEngine = VllmEngine(
            folder,
            end_id=tokenizer.eos_token_id,
            max_model_len=params.max_model_len,
            dtype=params.dtype,
            seed=seed,
            tensor_parallel=params.tensor_parallel,
            kv_cache_gb=params.kv_cache_gb,
            batch_size=params.batch_size,
            threads=threads,
        )
    else:
        model = load_model(folder, params.dtype, device_of(params.device, "engine.device"))
        engine = TransformersEngine(model, tokenizer.pad_token_id, tokenizer.eos_token_id, params.batch_size)
        del model
    try:
        yield engine
    finally:
        engine.close()


def on_cpu(params: EngineParams) -> bool:
    """Whether this process generates on its own CPU, where several models may do so side by side."""
    return params.kind == "transformers" and device_of(params.device, "engine.device") == "cpu"
