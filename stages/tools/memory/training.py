"""What a training takes: of each of its processes, on a GPU or on the host, and of the host beside that."""

from stages.midtrain.params import SCRATCH
from stages.shared.core.launch import TrainingSection
from stages.shared.training.params import OptimizerSection
from stages.tools.check_params import Params
from stages.tools.memory.formulas import Bytes, Sharding, activations, logits, weight_width, weights_and_optimizer
from stages.tools.memory.learning import Learning, learning
from stages.tools.memory.shapes import Shape, layout_tokens
from stages.tools.memory.stage import CONTEXT, GB, LIBRARIES, StageMemory, TokenCounts

TOKEN_BYTES = 48  # of a training row in a process: a Python integer, and references to it and to its weight (lm/encoding.py)


def supervised(memory: StageMemory, shape: Shape, section: OptimizerSection, params: Params, batch: TokenCounts) -> None:
    sharding, bfloat16 = Sharding.of(section.all_processes, section.deepspeed), section.precision == "bfloat16"
    token_rows = layout_tokens(params.tokenize.levels, params.tokenize.codebook_size)
    model = learning(shape, section, token_rows)
    made = {"activations": activations(shape, batch.tokens, section.gradient_checkpointing, bfloat16)}
    made["logits"] = logits(shape, batch.counted, section.loss_chunk)
    place(memory, section, sharding, of_training(model, sharding, bfloat16, False, made, {}, on_gpu=bool(memory.gpus)))
    processes, host = section.processes, memory.host
    # One process of a node makes them, as Python's numbers, and all read them from files (training/rows/row_files.py).
    host["training rows"] = TOKEN_BYTES * batch.rows / GB
    if sharding.stage == 3:
        # zero.Init leaves each process its share, and what it reads are pages of the file, the same ones for all. At the end, and when it
        # saves, the main process holds all.
        host["the whole model, to be saved"] = weight_width(sharding, bfloat16, False) * shape.parameters / GB
    elif memory.gpus:
        host["models as they are read"] = models_read(shape, processes, stored(memory.stage, shape, params)) / GB
    if memory.stage == "midtrain" and params.midtrain.model != SCRATCH:
        # Every process takes the means of the embedding for the rows of new tokens (midtrain/new_rows.py), before it trains.
        host["embeddings, for new rows"] = processes * 4 * shape.rows * shape.hidden / GB if memory.gpus else 0.0


def models_read(shape: Shape, processes: int, stored: int) -> float:
    """As float32, of processes that put it whole on a GPU each: of a float32 file the pages serve all, another is converted by each."""
    return 4.0 * shape.parameters * (processes if stored < 4 else 1)


def stored(stage: str, shape: Shape, params: Params) -> int:
    """Bytes of a number in the model that a stage reads: the user's, or what midtrain or sft wrote."""
    if stage == "midtrain":
        return shape.stored
    before: OptimizerSection = params.midtrain if stage == "sft" else params.sft
    return weight_width(Sharding.of(before.all_processes, before.deepspeed), before.precision == "bfloat16", False)


def of_training(
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


def place(memory: StageMemory, params: TrainingSection, sharding: Sharding, parts: Bytes) -> None:
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
