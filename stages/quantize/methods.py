"""One layer's weights to codes and scales, by any method; the weights are replaced by what the codes stand for."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from stages.quantize import awq, quantlrm
from stages.quantize.gptq import gptq_codes
from stages.quantize.layers import InputStatistics
from stages.quantize.params import QuantizeParams
from stages.quantize.rounding import codes_of, dequantize_weight, quantize_weight, relative_error, scales_of
from stages.quantize.schemes import WeightGrid, grid_of

NOT_CLIPPED = ("q_proj", "k_proj")  # their product is what matters, not their outputs (section 5.1 of AWQ's code: no clipping there)


class WeightQuantizer:
    """The method of `params` on a model of this family. linears: all that will be quantized, by name."""

    def __init__(self, params: QuantizeParams, family: str, head_dim: int, linears: Mapping[str, nn.Linear]):
        self.params, self.family, self.head_dim = params, family, head_dim
        self.grid: WeightGrid = grid_of(params)
        self.base: quantlrm.BaseWeights | None = None
        if params.method == "quantlrm":
            self.base = quantlrm.BaseWeights(Path(params.base))
            self.updates = quantlrm.UpdateRange.of(self.base, linears)

    @property
    def needs_statistics(self) -> bool:
        return self.params.method != "rtn"

    @torch.no_grad()
    def quantize_block(
        self, block: nn.Module, prefix: str, linears: Mapping[str, nn.Linear], statistics: Mapping[str, InputStatistics]
    ) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, float]]:
        """-> (codes and scales, relative errors), by full name. linears, statistics: by name within `block`, whose own name is `prefix`."""
        grams = {name: one.gram_II for name, one in statistics.items()}
        if self.params.method in ("awq", "quantlrm"):
            grams = self._fold(block, prefix, linears, statistics)
        quantized, errors = {}, {}
        for name, linear in linears.items():
            codes, scale = self._codes(name, linear.weight.data, grams.get(name))
            restored = dequantize_weight(codes, scale)
            errors[f"{prefix}.{name}"] = relative_error(linear.weight.data, restored)
            linear.weight.data.copy_(restored)
            quantized[f"{prefix}.{name}"] = codes.cpu(), scale.cpu()
        return quantized, errors

    def _codes(self, name: str, weight_OI: Tensor, gram_II: Tensor | None) -> tuple[Tensor, Tensor]:
        bits, group = self.grid.bits, self.grid.group
        if gram_II is None:
            return quantize_weight(weight_OI, bits, group)
        if self.params.method == "gptq":
            scale = scales_of(weight_OI, bits, group)
            return gptq_codes(weight_OI, scale, gram_II, bits, self.params.damp), scale
        if name.endswith(NOT_CLIPPED):
            return quantize_weight(weight_OI, bits, group)
        scale = awq.search_range(weight_OI, gram_II, bits, group)
        return codes_of(weight_OI, scale, bits), scale

    def _fold(
        self, block: nn.Module, prefix: str, linears: Mapping[str, nn.Linear], statistics: Mapping[str, InputStatistics]
    ) -> dict[str, Tensor]:
        """Scales the inputs of all layers; -> the gram matrices of the scaled ones."""
        grams: dict[str, Tensor] = {}
        for one in awq.folds_of(block, self.family):
            first, found = one.layers[0], statistics[one.layers[0]]
            if self.base:
                update = self.base.update(f"{prefix}.{first}", linears[first])
                importance = quantlrm.importance(update, self.updates)
            else:
                importance = found.absolute_I / found.tokens
            importance = awq.tied_to_source(importance, one.source, self.head_dim)
            layers = [linears[name] for name in one.layers]
            scale = awq.search_scale([layer.weight for layer in layers], importance, found.gram_II, self.grid.bits, self.grid.group)
            awq.fold(scale, one.source, layers, self.head_dim)
            grams |= dict.fromkeys(one.layers, found.scaled(scale))
        return grams
