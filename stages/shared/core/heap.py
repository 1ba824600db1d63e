"""What the C library does with memory that torch frees on the CPU."""

import ctypes
import gc
import sys
from collections.abc import Callable

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
LARGEST = 2**31 - 1  # an int of C: the top of the heap goes back to the kernel when more than this is free there


def keep_freed_memory() -> bool:
    """Lets this process use again what it frees; returns whether the C library is one that can be told so (glibc).

    glibc gives every block above 32 MB back to the kernel when it is freed. Training frees and takes the same activations at each step, and
    the kernel clears each page anew: a third of the time of a small decoder's step. bench/freed_memory.py measures it.
    """
    mallopt = _of_c_library("mallopt")
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, LARGEST))


def give_back_freed_memory() -> None:
    """When training is over: what follows it needs other memory, and so does what runs beside this process."""
    gc.collect()  # an optimizer is in a circle with its trainer
    if trim := _of_c_library("malloc_trim"):
        trim(0)


def _of_c_library(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
