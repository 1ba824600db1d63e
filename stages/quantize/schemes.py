"""What each quantize.scheme means, and what of a model it is applied to."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.quantize.params import BITS, QuantizeParams
from stages.shared.core.errors import StageError

TABLE_BITS = 8  # of embeddings and head where they are not protected


@dataclass(frozen=True)
class WeightGrid:
    """bits of a weight; group: weights of a row that share a scale, 0 = the whole row; activation_bits: of a layer's input, 0 = full."""

    bits: int
    group: int = 0
    activation_bits: int = 0


def grid_of(params: QuantizeParams) -> WeightGrid:
    return WeightGrid(BITS[params.scheme], params.group_size if params.grouped else 0, 8 if params.scheme == "w8a8" else 0)


def quantizable(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """Every linear layer but the output head, which is often the embedding matrix itself and is read token by token there."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head}


def tables_to_round(model: PreTrainedModel, protect: Collection[str]) -> dict[str, nn.Module]:
    """Name -> module of the embedding and the head, as far as they are not protected."""
    modules = {"embeddings": model.get_input_embeddings(), "head": model.get_output_embeddings()}  # type: ignore[no-untyped-call]
    if model.config.tie_word_embeddings and len(set(protect) & set(modules)) == 1:
        raise StageError(
            f"params.yaml: quantize.protect: {', '.join(protect)}: the head of this model is its embedding matrix itself; "
            "name both or neither"
        )
    name_of = {module: name for name, module in model.named_modules()}
    return {name_of[module]: module for key, module in modules.items() if key not in protect}


def check_weights(layers: dict[str, nn.Linear], grid: WeightGrid, source: object) -> None:
    """StageError naming the layer for weights that are no numbers, or that groups of this size do not divide."""
    if not layers:
        raise StageError(f"{source}: no linear layer apart from the output head; there is nothing to quantize")
    for name, layer in layers.items():
        if not bool(torch.isfinite(layer.weight).all()):
            raise StageError(f"{source}: {name}.weight holds NaN or infinity; lower rl.lr or sft.lr and train again")
        if grid.group and layer.in_features % grid.group:
            raise StageError(
                f"params.yaml: quantize.group_size: {grid.group} does not divide the {layer.in_features} inputs of {name}; "
                "choose a smaller power of two"
            )
