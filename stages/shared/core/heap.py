"""What the C library does with memory that torch frees on the CPU."""

import ctypes
import sys

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
