"""Which numbers of a model a training stage holds, and of which it keeps gradients and the optimizer's state. In numbers, not bytes."""

from dataclasses import dataclass

from stages.shared.core.errors import StageError
from stages.shared.training.params import LoraSection, OptimizerSection
from stages.tools.memory.shapes import Shape


@dataclass(frozen=True)
class Learning:
    """held: weights, those of adapters too; trained: those that learn; one_moment: of them those of which the
    optimizer keeps one number, not AdamW's two; merged: of whole embeddings that are written anew in each pass."""

    held: int
    trained: int
    one_moment: int = 0
    merged: int = 0


def whole(shape: Shape) -> Learning:
    return Learning(shape.parameters, shape.parameters)


def learning(shape: Shape, params: OptimizerSection, token_rows: int) -> Learning:
    """token_rows: rows of an embedding that are trained beside adapters. Muon, of torch.optim, keeps the momentum of matrices alone."""
    if params.lora.rank:
        return with_adapters(shape, params.lora, token_rows)
    muon = params.optimizer == "muon" and not params.deepspeed
    return Learning(shape.parameters, shape.parameters, one_moment=shape.matrices if muon else 0)


def with_adapters(shape: Shape, lora: LoraSection, token_rows: int) -> Learning:
    """Two matrices a target (Hu et al. 2021, arXiv 2106.09685), and of each embedding the rows, which peft holds twice: as they learn and
    as they were. It also puts them into a copy of the embedding, whose gradient is as large, in every pass (TrainableTokensLayer)."""
    linear = shape.linear()
    if unknown := [target for target in lora.targets if target not in linear]:
        raise StageError(f"params.yaml: lora.targets: {shape.family} has no linear layer {unknown[0]!r}; it has {sorted(linear)}")
    adapters = shape.layers * sum(lora.rank * sum(linear[target]) for target in set(lora.targets))
    rows = token_rows * shape.hidden * (1 if shape.tied else 2) if lora.token_rows else 0
    return Learning(shape.parameters + adapters + 2 * rows, adapters + rows, merged=shape.rows * shape.hidden if rows else 0)
