"""A decoder layer by layer, on calibration text: only one layer is on the device, and only what goes into the next one is kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stages.shared.core.errors import StageError
from stages.shared.lm.encoding import WeightedExample


class _FirstLayerReached(Exception):
    pass


@dataclass(frozen=True)
class HiddenBatch:
    """hidden_BLD: what goes into a layer; arguments: what else it takes (positions, mask).

    real_BL: tokens that are no padding; predicts_BL: where the next token is one of those with a weight.
    """

    hidden_BLD: Tensor
    arguments: dict[str, Any]
    real_BL: Tensor
    predicts_BL: Tensor


def blocks_of(model: PreTrainedModel) -> nn.ModuleList:
    blocks = getattr(model.get_decoder(), "layers", None)
    kinds = set(getattr(model.config, "layer_types", None) or [])
    if not isinstance(blocks, nn.ModuleList) or len(kinds) > 1:
        raise StageError(
            f"a {model.config.model_type} is no stack of like layers, which quantize walks through one by one; choose another model"
        )
    return blocks


@torch.no_grad()
def first_inputs(model: PreTrainedModel, examples: Sequence[WeightedExample], batch_size: int) -> list[HiddenBatch]:
    """What goes into the first layer, on the host."""
    batches: list[HiddenBatch] = []
    seen: dict[str, Any] = {}

    def stop(module: nn.Module, positional: tuple[Tensor, ...], named: dict[str, Any]) -> None:
        seen.update(named, hidden_states=positional[0] if positional else named["hidden_states"])
        raise _FirstLayerReached

    handle = blocks_of(model)[0].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        for start in range(0, len(examples), batch_size):
            batch = examples[start : start + batch_size]
            width = max(len(example.ids) for example in batch)
            # Padding on the right: attention looks left only, so nothing that is kept sees it.
            ids_BL = torch.tensor([example.ids + [0] * (width - len(example.ids)) for example in batch])
            real_BL = torch.tensor([[True] * len(example.ids) + [False] * (width - len(example.ids)) for example in batch])
            predicts_BL = torch.tensor(
                [[*(weight > 0 for weight in example.weights[1:]), *[False] * (width - len(example.ids) + 1)] for example in batch]
            )
            try:
                model.get_decoder()(input_ids=ids_BL, use_cache=False)
            except _FirstLayerReached:
                batches.append(HiddenBatch(seen.pop("hidden_states"), dict(seen), real_BL, predicts_BL))
                seen.clear()
    finally:
        handle.remove()
    return batches


@torch.no_grad()
def run_block(block: nn.Module, batches: Sequence[HiddenBatch], device: str) -> list[HiddenBatch]:
    """What goes into the next layer, on the host again."""
    return [replace(batch, hidden_BLD=_output(block, batch, device).cpu()) for batch in batches]


def _output(block: nn.Module, batch: HiddenBatch, device: str) -> Tensor:
    output = block(batch.hidden_BLD.to(device), **{name: _moved(value, device) for name, value in batch.arguments.items()})
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def _moved(value: Any, device: str) -> Any:
    if isinstance(value, tuple):
        return tuple(_moved(part, device) for part in value)
    return value.to(device) if isinstance(value, Tensor) else value


@dataclass
class InputStatistics:
    """Of the inputs x of a linear layer over all real tokens: gram_II = sum of x x^T, absolute_I = sum of |x|; float32."""

    gram_II: Tensor
    absolute_I: Tensor
    tokens: int = 0

    def add(self, inputs_NI: Tensor) -> None:
        self.gram_II += inputs_NI.T @ inputs_NI
        self.absolute_I += inputs_NI.abs().sum(dim=0)
        self.tokens += len(inputs_NI)

    def scaled(self, scale_I: Tensor) -> Tensor:
        """The gram of x / s."""
        return self.gram_II / (scale_I[:, None] * scale_I)


@torch.no_grad()
def input_statistics(
    block: nn.Module, linears: Mapping[str, nn.Linear], batches: Sequence[HiddenBatch], device: str
) -> dict[str, InputStatistics]:
    """Of each of `linears`; those that read the same tensor share one object."""
    statistics: dict[str, InputStatistics] = {}
    last: list[Any] = [None, ""]  # the input last seen, and the first layer that read it
    real: list[Tensor] = []

    def recorder(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def record(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            if args[0] is last[0]:
                statistics[name] = statistics[last[1]]
                return
            last[:] = args[0], name
            inputs_NI = args[0][real[0]].float()
            if name not in statistics:
                size = inputs_NI.shape[1]
                statistics[name] = InputStatistics(inputs_NI.new_zeros(size, size), inputs_NI.new_zeros(size))
            statistics[name].add(inputs_NI)

        return record

    handles = [linear.register_forward_pre_hook(recorder(name)) for name, linear in linears.items()]
    try:
        for batch in batches:
            real[:] = [batch.real_BL.to(device)]
            _output(block, batch, device)
    finally:
        for handle in handles:
            handle.remove()
    return statistics


@contextmanager
def rounded_inputs(linears: Mapping[str, nn.Linear], rounding: Callable[[Tensor], Tensor] | None) -> Iterator[None]:
    """Within the block these layers read what `rounding` makes of their inputs."""
    handles = (
        [linear.register_forward_pre_hook(lambda module, args: (rounding(args[0]),)) for linear in linears.values()] if rounding else []
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
