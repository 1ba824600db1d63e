"""What the C library does with memory that torch frees on the CPU."""

import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
LARGEST = 2**31 - 1  # an int of C: the top of the heap goes back to the kernel when more than this is free there
USUAL = {M_TRIM_THRESHOLD: 128 * 1024, M_MMAP_MAX: 65_536}  # glibc's own


@contextmanager
def freed_memory_kept() -> Iterator[bool]:
    """While the block runs, this process uses again what it frees; False where the C library cannot be told so (it is not glibc).

    glibc gives every block above 32 MB back to the kernel when it is freed. Training frees and takes the same activations at each step, and
    the kernel clears each page anew: a tenth of a step's time in the default profile, a third with batches of 32,000 tokens
    (bench/freed_memory.py). When training is over all of it is given back: what follows needs other memory, and so does what runs beside.
    """
    mallopt, trim = _of_c_library("mallopt"), _of_c_library("malloc_trim")
    if mallopt is None or trim is None:
        yield False
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, LARGEST)
    try:
        yield True
    finally:
        for option, value in USUAL.items():
            mallopt(option, value)
        gc.collect()  # an optimizer is in a circle with its trainer
        trim(0)


def _of_c_library(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
