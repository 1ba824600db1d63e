"""Memory that training frees stays with its process while it trains, where the C library can be told so."""

import subprocess
import sys

import pytest

# Touches 48 MB ten times over in a process of its own, for what is set counts for the whole process.
SCRIPT = """
import contextlib, resource, sys
import numpy as np
from stages.shared.training.heap import freed_memory_kept


def resident():
    return int(open("/proc/self/statm").read().split()[1])


with freed_memory_kept() if sys.argv[1] == "keep" else contextlib.nullcontext(True) as kept:
    if not kept:
        sys.exit(3)
    np.ones(6_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(6_000_000)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    held = resident()
print(held - resident())
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(6_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(side: str) -> list[int]:
    """New pages while it frees and takes the same block again; pages that it gives back at the end; new pages after that."""
    result = subprocess.run([sys.executable, "-c", SCRIPT, side], capture_output=True, text=True, check=False)
    if result.returncode == 3:
        pytest.skip("the C library of this machine has no mallopt")
    assert result.returncode == 0, result.stderr
    return [int(line) for line in result.stdout.split()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone is told what to do with freed memory")
def test_freed_memory_is_used_again_and_given_back_at_the_end():
    (kept, given_back, after), (returned, left, usual) = pages("keep"), pages("return")
    assert kept * 10 < returned
    assert given_back * 2 > returned / 10 and left < given_back / 10
    assert after > usual / 2, "the C library is as it was"
