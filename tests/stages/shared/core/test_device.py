"""Arithmetic that a machine does not have: told once, and replaced by float32."""

import pytest
import torch

from stages.shared.core import device
from stages.shared.core.launch import TrainingSection


@pytest.fixture
def plain_cpu(monkeypatch):
    """A CPU that multiplies matrices in float32 alone, and no GPU."""
    monkeypatch.setattr(device, "multiplies_in", lambda dtype, where="auto": dtype == "float32" or where == "cuda")
    device._say.cache_clear()


def test_what_is_missing_is_computed_in_float32_and_said_once(plain_cpu, capsys):
    assert [device.arithmetic(dtype, "cpu") for dtype in ("float32", "bfloat16", "bfloat16", "float16")] == ["float32"] * 4
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and said[0].startswith("NOTE: bfloat16 is asked for") and said[1].startswith("NOTE: float16")
    assert device.arithmetic("bfloat16", "cuda") == "bfloat16" and not capsys.readouterr().err


def test_training_asks_for_it(plain_cpu, monkeypatch):
    asked = [TrainingSection(precision=precision).autocasts for precision in ("float32", "bfloat16")]
    assert asked == [False, False]
    monkeypatch.setattr(device, "multiplies_in", lambda dtype, where="auto": True)
    asked = [TrainingSection(precision=precision).autocasts for precision in ("float32", "bfloat16")]
    assert asked == [False, True]


def test_a_product_is_where_torch_says_that_it_has_kernels():
    """Whatever this machine is: torch's own answer, for oneDNN; float32 always; a GPU always."""
    assert device.multiplies_in("bfloat16", "cpu") == torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert device.multiplies_in("float16", "cpu") == torch.ops.mkldnn._is_mkldnn_fp16_supported()
    assert device.multiplies_in("float32", "cpu") and device.multiplies_in("bfloat16", "cuda")
