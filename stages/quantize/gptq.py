"""GPTQ: codes of a weight matrix that answer for each other's rounding errors.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers" (arXiv 2210.17323). Minimised is
||W X - Q X||^2 over the calibration inputs X. With H = X X^T + damping, and U the upper Cholesky factor of H^-1, the columns are rounded
one after the other, and the error of column i is put on those that are still to come:

    e_i = (W_:i - Q_:i) / U_ii,    W_:j -= e_i U_ij  for j > i   (algorithm 1)

Columns come in the order of falling H_ii ("act-order" of the authors' code). Scales are those of the weights before any of this ("static
groups" there), so that the file needs no index of groups and every kernel reads it.
"""

import torch
from torch import Tensor

from stages.quantize.rounding import code_range, spread
from stages.shared.core.errors import StageError

BLOCK = 128  # columns whose later neighbours are updated at once
MOST_DAMPING = 1.0


def gptq_codes(weight_OI: Tensor, scale_OG: Tensor, gram_II: Tensor, bits: int, damp: float) -> Tensor:
    """int8 codes [O, I] under the given scales. gram_II: sum of x x^T over calibration inputs; damp: a share of its mean diagonal."""
    low, high, _ = code_range(bits)
    order = gram_II.diagonal().argsort(descending=True, stable=True)
    weight = weight_OI.float()[:, order].clone()
    scale = spread(scale_OG, weight_OI.shape[1]).float().expand_as(weight)[:, order]
    factor = _inverse_factor(gram_II.float()[order][:, order], damp)
    codes = torch.empty_like(weight)
    for start in range(0, weight.shape[1], BLOCK):
        end = min(start + BLOCK, weight.shape[1])
        errors = torch.zeros_like(weight[:, start:end])
        for column in range(start, end):
            codes[:, column] = (weight[:, column] / scale[:, column]).round().clamp(low, high)
            error = (weight[:, column] - codes[:, column] * scale[:, column]) / factor[column, column]
            weight[:, column + 1 : end] -= error[:, None] * factor[column, column + 1 : end]
            errors[:, column - start] = error
        weight[:, end:] -= errors @ factor[start:end, end:]
    restored = torch.empty_like(codes)
    restored[:, order] = codes
    return restored.to(torch.int8)


def _inverse_factor(gram_II: Tensor, damp: float) -> Tensor:
    """The upper Cholesky factor of the damped inverse. Damping is raised tenfold as long as rounding leaves the matrix indefinite."""
    diagonal = gram_II.diagonal()
    # An input that was always 0 says nothing about its weight: rounded by itself, it moves no other.
    unseen = torch.where(diagonal == 0, 1.0, 0.0)
    while damp <= MOST_DAMPING:
        damped = gram_II + torch.diag(unseen + damp * diagonal.mean())
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not failed:
            return upper
        damp *= 10
    raise StageError(
        "the inputs of a layer on the calibration prompts are no numbers, or all but the same; raise quantize.calibration_prompts"
    )
