"""What each stage takes of a GPU and of the host, beside what `resources` gives it. In GB of 2**30 bytes.

A stage without GPUs has its processes on the host. What asks no language model takes little, and is left out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.midtrain.params import SCRATCH
from stages.shared.core.launch import TrainingSection
from stages.shared.generation.params import EngineParams, TeacherEngineParams
from stages.shared.training.params import OptimizerSection
from stages.tools.check_params import Params
from stages.tools.memory.formulas import WIDTH, Bytes, Sharding, activations, generation, logits, weight_width, weights_and_optimizer
from stages.tools.memory.learning import Learning, learning, whole, with_adapters
from stages.tools.memory.shapes import Shape, layout_tokens, named_folder, scratch_shape, shape_of

GB = 2.0**30
CONTEXT = 4 * GB  # of a GPU: CUDA, NCCL, kernels, fragmentation
LIBRARIES = 1.5 * GB  # of the host, a process: python, torch, transformers
VLLM_SHARE = 0.9  # of a GPU that vLLM takes (gpu_memory_utilization, its default)
CHAT_PROMPT = 2048  # where prompt.max_tokens sets no budget: a slate of ten with titles and evidence
TOKENS_A_CANDIDATE, TOKENS_BEFORE = 60, 100  # of a trace of the statistical teacher in the layout chat (SmolLM2's tokenizer)
TOKEN_BYTES = 48  # of a training row in a process: a Python integer, and references to it and to its weight (lm/encoding.py)
PARALLEL_MODELS = 3  # that evaluate asks side by side on a CPU, with a thread each


@dataclass
class StageMemory:
    """gpu: of one GPU; host: of the machine. faults: what the numbers alone do not say."""

    stage: str
    model: str
    gpus: int
    gpu_limit: float
    host_limit: float
    gpu: dict[str, float] = field(default_factory=dict)
    host: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        return sum(self.gpu.values()) <= self.gpu_limit and sum(self.host.values()) <= self.host_limit and not self.faults


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of a process's batch; of them those that the loss counts; and of all rows."""

    tokens: int
    counted: int
    rows: int


@dataclass(frozen=True)
class Sizes:
    """Tokens of a prompt, of what is written after it, and of a training row of both."""

    prompt: int
    trace: int

    @property
    def row(self) -> int:
        return self.prompt + self.trace


def estimate(params: Params, resources: Mapping[str, Mapping[str, Any]], gpu_gb: float) -> tuple[list[StageMemory], list[str]]:
    """Of the stages with language models; and what keeps one from being computed."""
    student, teacher = _student(params), _teacher(params)
    unknown = [f"midtrain.model: {params.midtrain.model}"] if student is None else []
    unknown += [f"traces.language_model.model: {params.traces.language_model.model}"] if teacher is None and _asks_model(params) else []
    stages: list[StageMemory] = []

    def add(stage: str, model: str, measure: Callable[[StageMemory], None]) -> None:
        given = resources.get(stage, {})
        memory = StageMemory(stage, model, int(given.get("gpus", 0)), gpu_gb, float(given.get("memory_gb", 0)))
        measure(memory)
        stages.append(memory)

    sizes = _sizes(params)
    if student:
        midtrain, name = params.midtrain, params.midtrain.model
        batch = TokenCounts(
            midtrain.batch_size * midtrain.row_length, midtrain.batch_size * midtrain.row_length, midtrain.rows_taken * midtrain.row_length
        )
        add("midtrain", name, lambda memory: _supervised(memory, student, midtrain, params, batch))
    if teacher:
        engine = params.traces.language_model.engine
        length = sizes.prompt + params.traces.language_model.max_tokens
        add("traces", params.traces.language_model.model, lambda memory: _engine(memory, teacher, engine, length, 1))
    if student:
        sft = params.sft
        # Traces are few and taken again and again; practice is new in each row.
        practised = round(sft.practice_share * sft.rows_taken) * sizes.row
        taught = TokenCounts(sft.batch_size * sizes.row, sft.batch_size * sizes.trace, practised)
        add("sft", name, lambda memory: _supervised(memory, student, sft, params, taught))
        add("rl", name, lambda memory: _rl(memory, student, params, sizes))
        add("quantize", name, lambda memory: _quantize(memory, student, params, sizes))
        length = sizes.prompt + params.evaluate.max_tokens
        beside = min(params.evaluate.threads, PARALLEL_MODELS) if params.evaluate.engine.kind == "transformers" else 1
        add("evaluate", name, lambda memory: _engine(memory, student, params.evaluate.engine, length, beside))
    return stages, unknown


def model_gb(params: Params) -> float:
    """Of one model that the pipeline writes, as float32."""
    shape = _student(params)
    return 4 * shape.parameters / GB if shape else 0.0


def _student(params: Params) -> Shape | None:
    midtrain = params.midtrain
    shape = scratch_shape(midtrain) if midtrain.model == SCRATCH else shape_of(named_folder(midtrain.model))
    return shape.with_sids(params.tokenize.levels, params.tokenize.codebook_size) if shape else None


def _asks_model(params: Params) -> bool:
    return params.traces.teacher == "language_model" and params.traces.language_model.engine.kind != "endpoint"


def _teacher(params: Params) -> Shape | None:
    return shape_of(Path(params.traces.language_model.model)) if _asks_model(params) else None


def _sizes(params: Params) -> Sizes:
    if params.prompt.layout == "compact":  # a row holds a whole slate
        return Sizes(params.midtrain.row_length // 2, params.midtrain.row_length // 2)
    answer = params.prompt.explanation_tokens + 8 * params.retrieve.candidates
    if params.traces.teacher == "language_model":
        trace = params.traces.language_model.max_tokens
    else:
        trace = TOKENS_BEFORE + TOKENS_A_CANDIDATE * params.retrieve.candidates + answer
    return Sizes(params.prompt.max_tokens or CHAT_PROMPT, trace)


def _supervised(memory: StageMemory, shape: Shape, section: OptimizerSection, params: Params, batch: TokenCounts) -> None:
    sharding, bfloat16 = Sharding.of(section.all_processes, section.deepspeed), section.precision == "bfloat16"
    token_rows = layout_tokens(params.tokenize.levels, params.tokenize.codebook_size)
    model = learning(shape, section, token_rows)
    made = {"activations": activations(shape, batch.tokens, section.gradient_checkpointing, bfloat16)}
    made["logits"] = logits(shape, batch.counted, section.loss_chunk)
    _place(memory, section, sharding, _of_training(model, sharding, bfloat16, False, made, {}, on_gpu=bool(memory.gpus)))
    processes, host = section.processes, memory.host
    # One process of a node makes them, as Python's numbers, and all read them from files (training/rows/row_files.py).
    host["training rows"] = TOKEN_BYTES * batch.rows / GB
    if sharding.stage == 3:
        # zero.Init leaves each process its share, and what it reads are pages of the file, the same ones for all. At the end, and when it
        # saves, the main process holds all.
        host["the whole model, to be saved"] = weight_width(sharding, bfloat16, False) * shape.parameters / GB
    elif memory.gpus:
        host["models as they are read"] = _models_read(shape, processes, _stored(memory.stage, shape, params)) / GB
    if memory.stage == "midtrain" and params.midtrain.model != SCRATCH:
        # Every process takes the means of the embedding for the rows of new tokens (midtrain/new_rows.py), before it trains.
        host["embeddings, for new rows"] = processes * 4 * shape.rows * shape.hidden / GB if memory.gpus else 0.0


def _rl(memory: StageMemory, shape: Shape, params: Params, sizes: Sizes) -> None:
    rl = params.rl
    sharding, bfloat16 = Sharding.of(rl.all_processes, rl.deepspeed), rl.precision == "bfloat16"
    written = rl.micro_prompts * rl.group * rl.max_tokens
    read = rl.micro_prompts * sizes.prompt * (rl.group if rl.shared_prefix == "none" else 1)
    made = {"activations": activations(shape, read + written, rl.gradient_checkpointing, bfloat16)}
    made["logits"] = logits(shape, written, rl.logprob_chunk)
    sampler = generation(shape, "float32", rl.batch_size, sizes.prompt + rl.max_tokens)
    sampling = {"sampling's cache": sampler["key-value cache"]}
    if sharding.stage == 3:
        sampling["whole weights, to sample"] = sampler["weights"]
    token_rows = layout_tokens(params.tokenize.levels, params.tokenize.codebook_size)
    model = with_adapters(shape, rl.lora, token_rows) if rl.lora.rank else whole(shape)
    _place(memory, rl, sharding, _of_training(model, sharding, bfloat16, True, made, sampling, on_gpu=bool(memory.gpus)))
    if sharding.stage == 3:
        memory.host["the whole model, to be saved"] = 4.0 * shape.parameters / GB
    elif memory.gpus:
        memory.host["models as they are read"] = _models_read(shape, rl.processes, _stored("rl", shape, params)) / GB


def _models_read(shape: Shape, processes: int, stored: int) -> float:
    """As float32, of processes that put it whole on a GPU each: of a float32 file the pages serve all, another is converted by each."""
    return 4.0 * shape.parameters * (processes if stored < 4 else 1)


def _stored(stage: str, shape: Shape, params: Params) -> int:
    """Bytes of a number in the model that a stage reads: the user's, or what midtrain or sft wrote."""
    if stage == "midtrain":
        return shape.stored
    before: OptimizerSection = params.midtrain if stage == "sft" else params.sft
    return weight_width(Sharding.of(before.all_processes, before.deepspeed), before.precision == "bfloat16", False)


def _of_training(
    model: Learning, sharding: Sharding, bfloat16: bool, keeps_float32: bool, made: Bytes, sampling: Bytes, on_gpu: bool
) -> Bytes:
    """Parts of one process at its peak: it makes gradients, or steps, or samples, never two of them."""
    training = weights_and_optimizer(model, sharding, bfloat16, keeps_float32)
    backward = {**training.backward, **made}
    if not on_gpu:
        # Of a buffer that is never filled the host gives no page.
        filled = weight_width(sharding, bfloat16, keeps_float32) * min(sharding.bucket, model.trained)
        backward["gradient buckets"] = min(backward["gradient buckets"], filled)
    peaks: list[Bytes] = [backward, training.step, sampling]
    peak: Bytes = max(peaks, key=lambda parts: sum(parts.values()))
    return {**training.kept, **peak}


def _place(memory: StageMemory, params: TrainingSection, sharding: Sharding, parts: Bytes) -> None:
    """Parts of one process, on its GPU or on the host."""
    processes = params.processes
    if memory.gpus:
        memory.gpu = {name: part / GB for name, part in {**parts, "context": CONTEXT}.items()}
        memory.host = {"libraries": processes * LIBRARIES / GB}
        if sharding.offloaded:
            memory.host["optimizer"] = processes * memory.gpu.pop("optimizer")
        if processes > memory.gpus:
            memory.faults.append(f"{memory.stage}.processes: {processes} for {memory.gpus} GPUs (resources.{memory.stage}.gpus)")
    else:
        memory.host = {name: processes * part / GB for name, part in {**parts, "libraries": LIBRARIES}.items()}


def _engine(memory: StageMemory, shape: Shape, engine: EngineParams | TeacherEngineParams, length: int, beside: int) -> None:
    engines, split = engine.data_parallel * beside, engine.tensor_parallel
    parts = generation(shape, engine.dtype, engine.batch_size, length)
    if not memory.gpus:
        if engine.kind == "vllm":
            parts["key-value cache"] = engine.kv_cache_gb * GB
        memory.host = {name: engines * part / GB for name, part in {**parts, "libraries": LIBRARIES}.items()}
        return
    memory.gpu = {name: part / split / GB for name, part in parts.items()} | {"context": CONTEXT / GB}
    # vLLM reads a shard at a time into its GPU; transformers the whole model onto the host.
    read = engines * WIDTH[engine.dtype] if engine.kind == "transformers" else WIDTH["bfloat16"]
    memory.host = {"libraries": engines * split * 2 * LIBRARIES / GB, "models as they are read": read * shape.parameters / GB}
    if engine.kind == "vllm":
        # It fills its share with cache, and lets requests wait for room: only one request must fit.
        room = VLLM_SHARE * memory.gpu_limit - memory.gpu["weights"] - memory.gpu["context"]
        one = engine.max_model_len * shape.kv_bytes(WIDTH[engine.dtype]) / split / GB
        memory.gpu["key-value cache"] = min(memory.gpu["key-value cache"], max(room, one))
    if engines * split > memory.gpus:
        memory.faults.append(f"{memory.stage}: {engines} engines of {split} GPUs for {memory.gpus} GPUs (resources.{memory.stage}.gpus)")


def _quantize(memory: StageMemory, shape: Shape, params: Params, sizes: Sizes) -> None:
    """On the host. Kept: the full model's logits where the teacher's words stand; a batch: all its logits, then both models' in float64."""
    quantize, width = params.quantize, WIDTH[params.quantize.dtype]
    kept = quantize.calibration_prompts * sizes.trace * shape.rows * 4
    batch = quantize.batch_size * shape.rows * (sizes.row * width + sizes.trace * 24)
    weights = (width + 2) * shape.parameters  # their codes, and these packed
    memory.host = {"weights": weights / GB, "logits kept": kept / GB, "logits of a batch": batch / GB, "libraries": LIBRARIES / GB}
