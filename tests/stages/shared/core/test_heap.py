"""Memory that a stage frees stays with its process, where the C library can be told so."""

import subprocess
import sys

import pytest

# Touches 48 MB ten times over in a process of its own, for what is set counts for the whole process, and prints the pages it was given.
SCRIPT = """
import resource, sys
from stages.shared.core.heap import give_back_freed_memory, keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else True
if not kept:
    sys.exit(3)
import numpy as np
np.ones(6_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(6_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


def resident():
    return int(open("/proc/self/statm").read().split()[1])


held = resident()
give_back_freed_memory()
print(held - resident())
"""


def pages(side: str) -> list[int]:
    """New pages while it frees and takes the same block again, and pages that it gives back afterwards."""
    result = subprocess.run([sys.executable, "-c", SCRIPT, side], capture_output=True, text=True, check=False)
    if result.returncode == 3:
        pytest.skip("the C library of this machine has no mallopt")
    assert result.returncode == 0, result.stderr
    return [int(line) for line in result.stdout.split()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone is told what to do with freed memory")
def test_freed_memory_is_used_again():
    (kept, given_back), (returned, left) = pages("keep"), pages("return")
    assert kept * 10 < returned
    # 48 MB in pages of 4 kB, or of 64 kB on some machines.
    assert given_back > 700 and left < given_back / 10
