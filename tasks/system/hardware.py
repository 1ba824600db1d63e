"""What this machine computes with: for the lineage record, read once a process."""

import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TypedDict


class Gpu(TypedDict):
    name: str
    memory_mb: int
    driver: str


class Hardware(TypedDict):
    """`cores`: those this process may use."""

    cpu: str
    cores: int
    memory_gb: float
    gpus: list[Gpu]
    platform: str


@cache
def hardware() -> Hardware:
    return {
        "cpu": _cpu(),
        # os.cpu_count() would count the cores of the host, not those that a container or Slurm leaves us.
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpus": _gpus(),
        "platform": platform.platform(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    # platform.processor() is empty or just "x86_64" on most Linux systems.
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpus() -> list[Gpu]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    # From the driver's tool: loading torch for it takes seconds, and tasks must not import it.
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        result = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [[part.strip() for part in line.split(",")] for line in result.stdout.splitlines() if result.returncode == 0]
    return [{"name": row[0], "memory_mb": int(row[1]), "driver": row[2]} for row in rows if len(row) == 3 and row[1].isdigit()]
