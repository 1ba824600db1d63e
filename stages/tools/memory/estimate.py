"""What each stage takes of a GPU and of the host, beside what `resources` gives it. In GB of 2**30 bytes.

A stage without GPUs has its processes on the host. What asks no language model takes little, and is left out.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stages.distil.params import NO_MODEL
from stages.midtrain.params import SCRATCH
from stages.tools.check_params import Params
from stages.tools.memory.distil import distil_memory
from stages.tools.memory.engine import engine_memory
from stages.tools.memory.precision import as_computed, asks_model
from stages.tools.memory.quantize import quantize_memory
from stages.tools.memory.rl import rl_memory
from stages.tools.memory.shapes import Shape, named_folder, scratch_shape, shape_of
from stages.tools.memory.shards import DataSize, embed_shard_memory, encoder_of, reply_gb, shard_counts, unknown_encoder
from stages.tools.memory.stage import GB, Sizes, StageMemory, TokenCounts
from stages.tools.memory.training import supervised

CHAT_PROMPT = 2048  # where prompt.max_tokens sets no budget: a slate of ten with titles and evidence
TOKENS_A_CANDIDATE, TOKENS_BEFORE = 60, 100  # of a trace of the statistical teacher in the layout chat (SmolLM2's tokenizer)
PARALLEL_MODELS = 3  # that evaluate asks side by side on a CPU, with a thread each
OWN_MODELS = "data/"  # folders that the stages write: of the student's size


def estimate(
    params: Params, resources: Mapping[str, Mapping[str, Any]], gpu_gb: float, data: DataSize | None = None
) -> tuple[list[StageMemory], list[str]]:
    """Of the stages with language models, and of shards; and what keeps one from being computed. data: where ingest has run."""
    params = as_computed(params, resources)
    student, teacher = _student(params), _teacher(params)
    unknown = [f"midtrain.model: {params.midtrain.model}"] if student is None else []
    unknown += [f"traces.language_model.model: {params.traces.language_model.model}"] if teacher is None and asks_model(params) else []
    unknown += unknown_encoder(params)
    stages: list[StageMemory] = []
    shards = shard_counts(params)

    def add(stage: str, model: str, measure: Callable[[StageMemory], None]) -> None:
        given = resources.get(stage, {})
        memory = StageMemory(stage, model, int(given.get("gpus", 0)), gpu_gb, float(given.get("memory_gb", 0)), shards=shards.get(stage, 0))
        measure(memory)
        stages.append(memory)

    sizes = _sizes(params)
    if params.embed.shards and (encoder := encoder_of(params.embed.model)):
        add("embed_shard", params.embed.model, lambda memory: embed_shard_memory(memory, encoder, params, data))
    if student:
        midtrain, name = params.midtrain, params.midtrain.model
        batch = TokenCounts(
            midtrain.batch_size * midtrain.row_length, midtrain.batch_size * midtrain.row_length, midtrain.rows_taken * midtrain.row_length
        )
        add("midtrain", name, lambda memory: supervised(memory, student, midtrain, params, batch))
    if teacher:
        engine = params.traces.language_model.engine
        length = sizes.prompt + params.traces.language_model.max_tokens
        # Where there are shards, the stage only puts together what they wrote.
        asks = "traces_shard" if params.traces.shards else "traces"
        add(asks, params.traces.language_model.model, lambda memory: engine_memory(memory, teacher, engine, length, 1))
        stages[-1].disk = reply_gb(params, len(params.traces.shards), data) if params.traces.shards else 0.0
    if student:
        sft = params.sft
        # Traces are few and taken again and again; practice is new in each row.
        practised = round(sft.practice_share * sft.rows_taken) * sizes.row
        taught = TokenCounts(sft.batch_size * sizes.row, sft.batch_size * sizes.trace, practised)
        add("sft", name, lambda memory: supervised(memory, student, sft, params, taught))
        distil, distilled = params.distil, _distils_from(params, student)
        if distil.trains and distilled:
            add("distil", name, lambda memory: distil_memory(memory, student, distilled, params, sizes))
        elif distil.trains:
            unknown.append(f"distil.teacher: {distil.teacher}")
        add("rl", name, lambda memory: rl_memory(memory, student, params, sizes))
        add("quantize", name, lambda memory: quantize_memory(memory, student, params, sizes))
        length = sizes.prompt + params.evaluate.max_tokens
        beside = min(params.evaluate.threads, PARALLEL_MODELS) if params.evaluate.engine.kind == "transformers" else 1
        add("evaluate", name, lambda memory: engine_memory(memory, student, params.evaluate.engine, length, beside))
    return stages, unknown


def model_gb(params: Params) -> float:
    """Of one model that the pipeline writes, as float32."""
    shape = _student(params)
    return 4 * shape.parameters / GB if shape else 0.0


def _student(params: Params) -> Shape | None:
    midtrain = params.midtrain
    shape = scratch_shape(midtrain) if midtrain.model == SCRATCH else shape_of(named_folder(midtrain.model))
    return shape.with_sids(params.tokenize.levels, params.tokenize.codebook_size) if shape else None


def _teacher(params: Params) -> Shape | None:
    return shape_of(Path(params.traces.language_model.model)) if asks_model(params) else None


def _distils_from(params: Params, student: Shape) -> Shape | None:
    """The distil stage's teacher."""
    folder = params.distil.teacher
    return student if folder == NO_MODEL or folder.startswith(OWN_MODELS) else shape_of(named_folder(folder))


def _sizes(params: Params) -> Sizes:
    if params.prompt.layout == "compact":  # a row holds a whole slate
        return Sizes(params.midtrain.row_length // 2, params.midtrain.row_length // 2)
    answer = params.prompt.explanation_tokens + 8 * params.retrieve.candidates
    if params.traces.teacher == "language_model":
        trace = params.traces.language_model.max_tokens
    else:
        trace = TOKENS_BEFORE + TOKENS_A_CANDIDATE * params.retrieve.candidates + answer
    return Sizes(params.prompt.max_tokens or CHAT_PROMPT, trace)
