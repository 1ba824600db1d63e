"""GPTQ against the definition it is a fast form of: optimal brain quantization, column by column, in float64."""

import numpy as np
import pytest
import torch

from stages.quantize.awq import output_error
from stages.quantize.gptq import gptq_codes
from stages.quantize.rounding import code_range, codes_of, dequantize_weight, scales_of
from stages.shared.core.errors import StageError

DAMP = 0.01


def correlated_gram(inputs: int, tokens: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    read = rng.normal(size=(tokens, inputs)) @ rng.normal(size=(inputs, inputs)) * rng.lognormal(size=inputs)
    return torch.from_numpy((read.T @ read).astype(np.float32))


def by_definition(weight: np.ndarray, scale: np.ndarray, gram: np.ndarray, bits: int) -> np.ndarray:
    """Rounds one column at a time, and moves those left by what minimises the output's error: -e [H^-1]_i,j / [H^-1]_i,i of the rest."""
    low, high, _ = code_range(bits)
    left = list(np.argsort(-np.diagonal(gram), kind="stable"))
    weight, codes = weight.copy(), np.zeros_like(weight)
    hessian = gram + DAMP * np.diagonal(gram).mean() * np.eye(len(gram))
    while left:
        column, *left = left
        inverse = np.linalg.inv(hessian[np.ix_([column, *left], [column, *left])])
        codes[:, column] = np.clip(np.round(weight[:, column] / scale[:, column]), low, high)
        error = weight[:, column] - codes[:, column] * scale[:, column]
        weight[:, left] -= np.outer(error / inverse[0, 0], inverse[0, 1:])
    return codes


@pytest.mark.parametrize(("bits", "group"), [(8, 0), (4, 8), (3, 16)])
def test_codes_are_those_of_the_definition(bits, group):
    weight = torch.randn(5, 160, generator=torch.Generator().manual_seed(bits))  # more columns than a block
    gram, scale = correlated_gram(160, 400, bits), scales_of(weight, bits, group)
    spread = scale.repeat_interleave(160 // scale.shape[1], dim=1).double().numpy()
    expected = by_definition(weight.double().numpy(), spread, gram.double().numpy(), bits)
    codes = gptq_codes(weight, scale, gram, bits, DAMP)
    # A weight that lies halfway between two codes may fall to either side in float32, and moves those after it.
    assert (codes.numpy() == expected).mean() > 0.98


@pytest.mark.parametrize("bits", [3, 4])
def test_outputs_are_nearer_than_of_rounding(bits):
    weight = torch.randn(12, 64, generator=torch.Generator().manual_seed(7))
    gram, scale = correlated_gram(64, 200, 1), scales_of(weight, bits, 16)
    nearest = dequantize_weight(codes_of(weight, scale, bits), scale) - weight
    compensated = dequantize_weight(gptq_codes(weight, scale, gram, bits, DAMP), scale) - weight
    assert output_error(compensated, gram) < 0.5 * output_error(nearest, gram)


def test_an_input_that_is_always_zero_moves_no_other():
    weight = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    gram = correlated_gram(16, 50, 2)
    gram[5], gram[:, 5] = 0, 0
    scale = scales_of(weight, 4, 16)
    codes = gptq_codes(weight, scale, gram, 4, DAMP)
    assert torch.equal(codes[:, 5], codes_of(weight, scale, 4)[:, 5])


def test_inputs_of_one_kind_are_damped_until_they_can_be_solved():
    weight = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    same = torch.ones(16, 16)
    assert gptq_codes(weight, scales_of(weight, 4), same, 4, 1e-9).abs().max() <= 8
    with pytest.raises(StageError, match="calibration_prompts"):
        gptq_codes(weight, scales_of(weight, 4), same * float("nan"), 4, DAMP)
