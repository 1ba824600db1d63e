"""The one place that opens an engine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.shared.core.device import arithmetic, device_of
from stages.shared.core.errors import StageError
from stages.shared.generation.base import Engine
from stages.shared.generation.data_parallel import DataParallelEngine
from stages.shared.generation.endpoint.client import EndpointClient
from stages.shared.generation.endpoint.engine import EndpointEngine
from stages.shared.generation.params import EngineParams, TeacherEngineParams
from stages.shared.generation.transformers_engine import TransformersEngine
from stages.shared.generation.vllm_engine import VllmEngine
from stages.shared.lm.models import check_weights, load_model, load_tokenizer


@contextmanager
def open_engine(
    params: EngineParams | TeacherEngineParams,
    folder: Path,
    seed: int = 0,
    threads: int = 1,
    client: EndpointClient | None = None,
    follows: bool = False,
) -> Iterator[Engine]:
    """The engine on the model at `folder`; its memory is free again when the block ends.

    client: of an endpoint, whose tokenizer is at `folder`; None: a new one that stops at the first prompt that keeps failing.
    follows: it takes other weights of this model, again and again, and vLLM gives drawn_logprobs (VllmEngine).
    """
    tokenizer = load_tokenizer(folder)
    if tokenizer.eos_token_id is None:
        raise StageError(f"{folder}/tokenizer_config.json: no eos_token; name the token that ends an answer, as the model's card has it")
    engine: VllmEngine | TransformersEngine | DataParallelEngine | EndpointEngine
    if params.kind == "endpoint":
        engine = EndpointEngine(client or EndpointClient(params.endpoint), tokenizer.eos_token_id)
    elif params.data_parallel > 1:
        check_weights(folder)
        engine = DataParallelEngine(params, folder, seed, threads)
    elif params.kind == "vllm":
        check_weights(folder)
        engine = VllmEngine(
            folder,
            end_id=tokenizer.eos_token_id,
            max_model_len=params.max_model_len,
            dtype=arithmetic(params.dtype),
            seed=seed,
            tensor_parallel=params.tensor_parallel,
            kv_cache_gb=params.kv_cache_gb,
            batch_size=params.batch_size,
            threads=threads,
            follows=follows,
        )
    else:
        device = device_of(params.device, "engine.device")
        model = load_model(folder, arithmetic(params.dtype, device), device)
        pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id  # hidden from every row
        engine = TransformersEngine(model, pad_id, tokenizer.eos_token_id, params.batch_size)
        del model
    try:
        yield engine
    finally:
        engine.close()


def on_cpu(params: EngineParams) -> bool:
    """Whether this process generates on its own CPU, where several models may do so side by side."""
    alone = params.kind == "transformers" and params.data_parallel == 1
    return alone and device_of(params.device, "engine.device") == "cpu"


def side_by_side(params: EngineParams, threads: int, models: int) -> int:
    """How many of `models` models are asked at a time, by as many Python threads: where they run on a CPU that has `threads` for all."""
    return min(threads, models) if on_cpu(params) else 1
