"""Memory that a stage frees stays with its process, where the C library can be told so."""

import subprocess
import sys

import pytest

# Touches 48 MB ten times over in a process of its own, for what is set counts for the whole process, and prints the pages it was given.
SCRIPT = """
import resource, sys
from stages.shared.core.heap import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else True
if not kept:
    sys.exit(3)
import numpy as np
np.ones(6_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(6_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(side: str) -> int:
    result = subprocess.run([sys.executable, "-c", SCRIPT, side], capture_output=True, text=True, check=False)
    if result.returncode == 3:
        pytest.skip("the C library of this machine has no mallopt")
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone is told what to do with freed memory")
def test_freed_memory_is_used_again():
    assert pages("keep") * 10 < pages("return")
