"""Where torch computes, and in which arithmetic."""

import sys
from functools import cache
from typing import Literal, TypeVar

import torch

from stages.shared.core.errors import StageError

Dtype = TypeVar("Dtype", bound=str)


def device_of(device: str, key: str) -> str:
    """`device`: auto, cpu or cuda, the value of the parameter `key`; auto takes the GPU if there is one."""
    if device == "cuda" and not torch.cuda.is_available():
        raise StageError(f"params.yaml: {key}: cuda, but torch finds no GPU here; set it to auto or cpu")
    return _own_device() if device == "auto" else device


def multiplies_in(dtype: str, device: str = "auto") -> bool:
    """Whether `device` has kernels for matrix products in `dtype` (float32, bfloat16, float16).

    A CPU has them where oneDNN does: for bfloat16 with AVX-512 or its like. On another one torch multiplies in a loop that takes sixty
    times as long as float32.
    """
    if dtype == "float32" or (_own_device() if device == "auto" else device) != "cpu":
        return True
    kernels = {"bfloat16": torch.ops.mkldnn._is_mkldnn_bf16_supported, "float16": torch.ops.mkldnn._is_mkldnn_fp16_supported}
    return bool(kernels[dtype]())


def arithmetic(dtype: Dtype, device: str = "auto") -> Dtype | Literal["float32"]:
    """`dtype`, or float32, which loses nothing but memory, where `device` does not multiply in it. The first time that is said."""
    if multiplies_in(dtype, device):
        return dtype
    _say(f"NOTE: {dtype} is asked for, and this CPU multiplies matrices in float32 alone, so that is taken; figures differ by rounding")
    return "float32"


@cache
def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _own_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
