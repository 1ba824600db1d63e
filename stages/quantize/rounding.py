"""Symmetric rounding of weight matrices to a grid of integers: the method `rtn`, and the last step of every other one."""

import torch
from torch import Tensor

INT8_LARGEST = 127  # -128 stays unused, so that a weight and its negative round alike


def code_range(bits: int) -> tuple[int, int, float]:
    """(lowest code, highest code, the codes that the largest weight of a group is away from 0).

    Below 8 bits every code counts, and the largest weight lies half a step beyond the highest one, as compressed-tensors'
    calculate_qparams has it: 7.5 at 4 bits, 3.5 at 3.
    """
    if bits == 8:
        return -INT8_LARGEST, INT8_LARGEST, INT8_LARGEST
    half = 2 ** (bits - 1)
    return -half, half - 1, half - 0.5


def scales_of(weight_OI: Tensor, bits: int, group: int = 0) -> Tensor:
    """Scales [O, G] in the weight's dtype: one for each `group` weights of a row, or for the row (group 0, G = 1)."""
    grouped_OGI = weight_OI.float().unflatten(1, (-1, group or weight_OI.shape[1]))
    scale_OG = grouped_OGI.abs().amax(dim=2) / code_range(bits)[2]
    return scale_OG.clamp(min=torch.finfo(torch.float32).tiny).to(weight_OI.dtype)  # a group of zeros has codes of zero


def codes_of(weight_OI: Tensor, scale_OG: Tensor, bits: int) -> Tensor:
    """The nearest codes, int8 [O, I]."""
    low, high, _ = code_range(bits)
    return (weight_OI.float() / spread(scale_OG, weight_OI.shape[1]).float()).round().clamp(low, high).to(torch.int8)


def spread(scale_OG: Tensor, inputs: int) -> Tensor:
    """Scales [O, G] -> the scale of each weight [O, I] (of one group: [O, 1], which broadcasts)."""
    return scale_OG if scale_OG.shape[1] == 1 else scale_OG.repeat_interleave(inputs // scale_OG.shape[1], dim=1)


def quantize_weight(weight_OI: Tensor, bits: int = 8, group: int = 0) -> tuple[Tensor, Tensor]:
    """Codes [O, I] and scales [O, G]: weight = code * scale, off by half a scale at most."""
    scale_OG = scales_of(weight_OI, bits, group)
    return codes_of(weight_OI, scale_OG, bits), scale_OG


def dequantize_weight(codes_OI: Tensor, scale_OG: Tensor) -> Tensor:
    return codes_OI.to(scale_OG.dtype) * spread(scale_OG, codes_OI.shape[1])


def round_inputs(inputs: Tensor, bits: int) -> Tensor:
    """Inputs [..., I] of a layer at `bits`, one scale a token, as compressed-tensors' dynamic quantization of activations rounds them."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scale = inputs.abs().amax(dim=-1, keepdim=True) / ((high - low) / 2)
    scale = scale.clamp(min=torch.finfo(inputs.dtype).tiny)
    return (inputs / scale).round().clamp(low, high) * scale


def relative_error(weight_OI: Tensor, restored_OI: Tensor) -> float:
    """Frobenius norm of the difference by that of the weight; 0 for a weight of zeros."""
    norm = float(torch.linalg.norm(weight_OI.double()))
    return float(torch.linalg.norm(weight_OI.double() - restored_OI.double())) / norm if norm else 0.0
