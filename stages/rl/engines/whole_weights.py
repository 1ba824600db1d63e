"""The policy's weights as an ordinary model has them: whole under ZeRO-3, adapters merged; one at a time, so that no GPU holds them all."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stages.shared.training.zero import gathered

WRAPPERS = (".base_layer", ".token_adapter")  # what peft puts into the names of weights that it changes
ADAPTERS = ("lora_", "trainable_tokens_")


class Weight(NamedTuple):
    """name: as in the model's folder; layer: peft's, around the weight, or None."""

    name: str
    parameter: nn.Parameter
    layer: nn.Module | None

    @property
    def shape(self) -> torch.Size:
        """Of the whole: under ZeRO-3 the parameter's own may be that of nothing."""
        return torch.Size(getattr(self.parameter, "ds_shape", self.parameter.shape))


def weights_of(model: PreTrainedModel) -> list[Weight]:
    """A weight that two layers share is named once, as in the folder."""
    rows = []
    for name, parameter in model.named_parameters():
        if any(part.startswith(ADAPTERS) for part in name.split(".")):
            continue
        owner, wrapped, _ = name.rpartition(WRAPPERS[0])
        plain = name
        for wrapper in WRAPPERS:
            plain = plain.replace(wrapper, "")
        rows.append(Weight(plain, parameter, model.get_submodule(owner) if wrapped else None))
    return rows


def whole_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """(name, value), in the order of weights_of. All processes run through it together."""
    with torch.no_grad():
        for name, parameter, layer in weights_of(model):
            adapters = [] if layer is None else [one for key, one in layer.named_parameters() if key.startswith(ADAPTERS)]
            with gathered([parameter, *adapters]):
                yield name, parameter if layer is None else merged(layer)


def merged(layer: Any) -> Tensor:
    """The weight that peft's layer computes with."""
    if hasattr(layer, "trainable_tokens_delta"):
        rows: Tensor = layer.get_merged_weights(layer.active_adapters)
        return rows
    delta: Tensor = sum(layer.get_delta_weight(adapter) for adapter in layer.active_adapters)
    return layer.base_layer.weight + delta.to(layer.base_layer.weight.dtype)  # type: ignore[no-any-return]
