"""The library that kills a process inside a write: that one process, in that file, with so many bytes of it written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))

import fault_writes

WRITE = "open('other.txt', 'w').write('x' * 100); open('target.txt', 'w').write('y' * 100)"


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_one_process_is_killed_with_so_many_bytes_written(tmp_path: Path) -> None:
    (tmp_path / ".gr2").mkdir()
    env = {**os.environ, **fault_writes.library(tmp_path)}
    (tmp_path / ".gr2" / "cut").write_text("5 /target.txt\n")
    first = subprocess.run([sys.executable, "-c", WRITE], cwd=tmp_path, env=env, check=False)
    assert first.returncode == -9
    assert (tmp_path / "other.txt").stat().st_size == 100 and (tmp_path / "target.txt").stat().st_size == 5
    assert fault_writes.struck(tmp_path, lambda: True, 1) > 0
    subprocess.run([sys.executable, "-c", WRITE], cwd=tmp_path, env=env, check=True)
    assert (tmp_path / "target.txt").stat().st_size == 100, "one fault a trial"
