import numpy as np
import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import calculate_qparams, compute_dynamic_scales_and_zp
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.quantize.rounding import code_range, dequantize_weight, quantize_weight, relative_error, round_inputs


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**6), st.sampled_from([1e-30, 1e-3, 1.0, 1e6]))
@settings(max_examples=60)
def test_rounding_properties(rows, columns, seed, size):
    weight = torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32) * size)
    codes, scale = quantize_weight(weight)
    restored = dequantize_weight(codes, scale)
    assert codes.abs().max() <= 127 and (codes.abs().amax(1) == 127).all()
    assert ((restored - weight).abs() <= scale * 0.5001).all()
    again, scale_again = quantize_weight(restored)
    assert torch.equal(again, codes) and torch.allclose(scale_again, scale, rtol=1e-6, atol=0)
    assert torch.equal(quantize_weight(-weight)[0], -codes)
    assert relative_error(weight, restored) < 0.01 * columns**0.5


def test_zeros_stay_zeros():
    weight = torch.zeros(2, 5)
    weight[1, 2] = 3.0
    restored = dequantize_weight(*quantize_weight(weight))
    assert torch.equal(restored, weight) and relative_error(torch.zeros(2, 2), torch.zeros(2, 2)) == 0


@pytest.mark.parametrize("bits", [3, 4])
def test_groups_are_rounded_as_compressed_tensors_rounds_them(bits):
    weight = torch.randn(6, 32, generator=torch.Generator().manual_seed(bits))
    grouped = weight.unflatten(1, (4, 8))
    args = QuantizationArgs(num_bits=bits, symmetric=True, strategy="group", group_size=8)
    scale, zero = calculate_qparams(grouped.amin(-1), grouped.amax(-1), args)
    codes, ours = quantize_weight(weight, bits, group=8)
    assert torch.allclose(ours, scale, rtol=1e-6, atol=0)
    assert torch.allclose(dequantize_weight(codes, ours), fake_quantize(weight, scale, zero, args), rtol=1e-5, atol=0)
    low, high, _ = code_range(bits)
    assert codes.min() == low and codes.max() == high, "every code is used"


def test_inputs_are_rounded_as_compressed_tensors_rounds_them():
    inputs = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0))
    args = QuantizationArgs(num_bits=8, symmetric=True, strategy="token", dynamic=True)
    scale, zero = compute_dynamic_scales_and_zp(inputs, args, torch.nn.Linear(1, 1))
    assert torch.allclose(round_inputs(inputs, 8), fake_quantize(inputs, scale, zero, args), rtol=1e-5, atol=0)
    assert torch.equal(round_inputs(torch.zeros(1, 3), 8), torch.zeros(1, 3))
