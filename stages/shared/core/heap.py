"""The memory of a stage's process: what is collected, and what the C library does with what torch frees on the CPU."""

import atexit
import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
LARGEST = 2**31 - 1  # an int of C: the top of the heap goes back to the kernel when more than this is free there


def keep_freed_memory() -> bool:
    """Lets this process use again what it frees; returns whether the C library is one that can be told so (glibc).

    glibc gives every block above 32 MB back to the kernel when it is freed. Training frees and takes the same activations at each step, and
    the kernel clears each page anew: a third of the time of a small decoder's step. bench/freed_memory.py measures it.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, LARGEST))


@contextmanager
def importing() -> Iterator[None]:
    """No garbage collection while the block imports, nor later of what it made.

    torch and transformers make a million objects that all stay. Looking through them again and again is a third of the time of their
    import, and a part of every collection afterwards.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # at the end the interpreter frees them as ever: nanobind takes what is left for a leak, and says so
