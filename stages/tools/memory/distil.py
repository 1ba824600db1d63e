"""What distillation takes: a student that learns, and the teacher beside it or before it."""

from dataclasses import replace

from stages.tools.check_params import Params
from stages.tools.memory.engine import engine_memory
from stages.tools.memory.formulas import WIDTH, Bytes, Sharding, activations, generation, logits, weight_width
from stages.tools.memory.shapes import Shape
from stages.tools.memory.stage import GB, Sizes, StageMemory, TokenCounts
from stages.tools.memory.training import supervised


def distil_memory(memory: StageMemory, student: Shape, teacher: Shape, params: Params, sizes: Sizes) -> None:
    """answer_only and race: the reasoning model is asked first, in a process that has ended when the student learns (distil.prepare)."""
    distil = params.distil
    written = distil.max_tokens if distil.mode == "on_policy" else sizes.trace
    row = sizes.prompt + written
    supervised(memory, student, distil, params, TokenCounts(distil.batch_size * row, distil.batch_size * written, distil.rows_taken * row))
    if distil.mode == "on_policy":
        beside = teacher_beside(student, teacher, params, row)
        on_gpu = bool(memory.gpus)
        for name, part in beside.items():
            target, count = (memory.gpu, 1) if on_gpu else (memory.host, distil.processes)
            target[name] = count * part / GB
        return
    asking = replace(memory, gpu={}, host={}, faults=[])
    engine_memory(asking, teacher, distil.engine, sizes.prompt + distil.max_tokens, 1)
    for own, other in ((memory.gpu, asking.gpu), (memory.host, asking.host)):
        if sum(other.values()) > sum(own.values()):
            own.clear()
            own |= {f"{name}, asking" if name != "context" else name: part for name, part in other.items()}
    memory.faults += asking.faults


def teacher_beside(student: Shape, teacher: Shape, params: Params, row: int) -> Bytes:
    """Of one process: the whole teacher, frozen, in the precision of training; a layer of it at work, whole distributions of a chunk of
    tokens, and keys and values of the student's rollouts. All of it is counted at once, though rollouts come before the loss."""
    distil = params.distil
    bfloat16, width = distil.precision == "bfloat16", WIDTH[distil.precision]
    sharding = Sharding.of(distil.all_processes, distil.deepspeed)
    sampled = "bfloat16" if weight_width(sharding, bfloat16, False) == 2 else "float32"
    rows = min(distil.engine.batch_size, distil.batch_size * distil.accumulate)
    layer = replace(teacher, layers=1)
    return {
        "teacher": float(width * teacher.parameters),
        "teacher's activations": activations(layer, distil.batch_size * row, False, bfloat16),
        "teacher's logits": logits(teacher, distil.batch_size * distil.max_tokens, distil.loss_chunk),
        "rollouts' cache": generation(student, sampled, rows, row)["key-value cache"],
    }
