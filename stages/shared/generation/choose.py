"""The one function that opens an engine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.shared.core.device import device_of
from stages.shared.generation.base import Engine
from stages.shared.generation.params import EngineParams
from stages.shared.generation.transformers_engine import TransformersEngine
from stages.shared.generation.vllm_engine import VllmEngine
from stages.shared.lm.models import load_model, load_tokenizer


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
