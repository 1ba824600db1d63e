"""Symmetric 8-bit rounding of weight matrices, one scale an output channel."""

import torch
from torch import Tensor

LARGEST = 127  # -128 stays unused, so that a weight and its negative round alike


def quantize_weight(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes [O, I] and scales [O, 1] in the weight's dtype: weight = codes * scale, off by half a scale at most."""
    scale_O1 = weight_OI.float().abs().amax(dim=1, keepdim=True) / LARGEST
    scale_O1 = scale_O1.clamp(min=torch.finfo(torch.float32).tiny).to(weight_OI.dtype)  # a row of zeros has codes of zero
    codes_OI = (weight_OI.float() / scale_O1.float()).round().clamp(-LARGEST, LARGEST).to(torch.int8)
    return codes_OI, scale_O1


def dequantize_weight(codes_OI: Tensor, scale_O1: Tensor) -> Tensor:
    return codes_OI.to(scale_O1.dtype) * scale_O1


def relative_error(weight_OI: Tensor, restored_OI: Tensor) -> float:
    """Frobenius norm of the difference by that of the weight; 0 for a weight of zeros."""
    norm = float(torch.linalg.norm(weight_OI.double()))
    return float(torch.linalg.norm(weight_OI.double() - restored_OI.double())) / norm if norm else 0.0
