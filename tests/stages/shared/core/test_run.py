"""The shared entry point: exit codes, messages, and what is left on disk."""

import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from stages.shared.core import run as run_module
from stages.shared.core.errors import StageError
from stages.shared.core.params import ComputeSection
from stages.shared.core.run import run_stage, set_seed

ROOT = Path(__file__).parents[4]


class ToyParams(ComputeSection):
    size: int = 1


class ToyMetrics(BaseModel):
    drawn: list[float]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_module, "set_threads", lambda count: None)  # the limit would outlive the test
    (tmp_path / "params.yaml").write_text("toy: {size: 2, threads: 1}\n")
    run_stage("toy", ToyParams, lambda: write)
    return tmp_path


@pytest.fixture(autouse=True)
def loose_kernels():
    yield
    torch.use_deterministic_algorithms(False)


def write(params, outputs) -> None:
    outputs.path("out.txt").write_text(str(params.size))
    outputs.metrics({"drawn": [random.random(), float(np.random.rand()), float(torch.rand(1))]}, ToyMetrics)


def contents(root) -> dict[str, str]:
    return {path.name: path.read_text() for path in (root / "data/toy").iterdir()}


def python(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def fails_with(error: Exception) -> str:
    def compute(params, outputs):
        write(params, outputs)
        raise error

    with pytest.raises(SystemExit) as caught:
        run_stage("toy", ToyParams, lambda: compute)
    assert isinstance(caught.value.code, str), "a message as exit code ends the process with 1"
    return caught.value.code


def test_a_run_publishes_and_repeats_itself(project):
    first = contents(project)
    assert first["out.txt"] == "2" and sorted(first) == ["metrics.json", "out.txt"]
    run_stage("toy", ToyParams, lambda: write)
    assert contents(project) == first
    (project / "params.yaml").write_text("toy: {size: 2, seed: 8}\n")
    run_stage("toy", ToyParams, lambda: write)
    assert contents(project)["metrics.json"] != first["metrics.json"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_and_harms_nothing(project, code):
    before = contents(project)
    message = fails_with(OSError(code, os.strerror(code), "data/.toy.partial/out.txt"))
    assert message.startswith(f"toy: no space left on the disk of {project}") and "Earlier outputs are untouched" in message
    assert contents(project) == before and not list((project / "data").glob(".*"))


def test_a_stage_error_is_its_message_alone(project):
    before = contents(project)
    assert fails_with(StageError("data/x.parquet: the column 'item' is missing")) == "toy: data/x.parquet: the column 'item' is missing"
    assert contents(project) == before


def test_a_wrong_parameter_stops_before_anything_is_computed(project):
    (project / "params.yaml").write_text("toy: {sise: 2}\n")
    with pytest.raises(SystemExit, match=r"toy: params\.yaml: toy\.sise: unknown key; did you mean 'size'\?"):
        run_stage("toy", ToyParams, lambda: pytest.fail("loaded"))


@pytest.mark.parametrize("error", [ValueError("bug"), PermissionError(errno.EACCES, "denied")])
def test_a_bug_of_ours_keeps_its_traceback(project, error):
    def compute(params, outputs):
        raise error

    with pytest.raises(type(error)):
        run_stage("toy", ToyParams, lambda: compute)
    assert contents(project)["out.txt"] == "2"


def test_seeds_reach_every_generator():
    drawn = []
    for _ in range(2):
        set_seed(5)
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]


def test_as_a_process_it_prints_the_message_and_exits_with_1(tmp_path):
    """A disk that is really full: /dev/full refuses every byte."""
    (tmp_path / "params.yaml").write_text("toy: {}\n")
    script = (
        "from stages.shared.core.params import ComputeSection\nfrom stages.shared.core.run import run_process\n"
        "def compute(params, outputs):\n    open('/dev/full', 'w').write('x' * 100000)\n"
        "run_process('toy', ComputeSection, lambda: compute)\n"
    )
    done = python(tmp_path, script)
    assert done.returncode == 1 and "toy: no space left on the disk" in done.stderr and "Traceback" not in done.stderr
    assert list((tmp_path / "data").iterdir()) == []


LATE = """
import sys
from stages.shared.core.params import ComputeSection
from stages.shared.core.run import run_process

def load():
    print("loads", flush=True)
    import atexit, gc, torch, triton
    assert not gc.isenabled(), "a third of the time of an import"
    atexit.register(print, "exit function")
    def compute(params, outputs):
        assert gc.isenabled() and gc.get_freeze_count() > 100_000
        outputs.path("out.txt").write_text("made")
        print("no end of line", end="")
        if params.seed == 8:
            sys.exit("as any program does")
    return compute

run_process("toy", ComputeSection, load)
"""


@pytest.mark.parametrize(("params", "code", "said"), [("{}", 0, ""), ("{seed: 8}", 1, "as any program does\n")])
def test_a_process_imports_without_collections_and_ends_at_once(tmp_path, params, code, said):
    """What it prints is there, exit functions run, nothing is said of leaks."""
    (tmp_path / "params.yaml").write_text(f"toy: {params}\n")
    done = python(tmp_path, LATE)
    assert (done.returncode, done.stdout, done.stderr) == (code, "loads\nno end of lineexit function\n", said)
    assert (tmp_path / "data/toy/out.txt").exists() == (code == 0)


def test_wrong_parameters_are_told_before_the_stage_is_imported(tmp_path):
    (tmp_path / "params.yaml").write_text("toy: {sead: 1}\n")
    done = python(tmp_path, LATE)
    assert done.returncode == 1 and "toy.sead: unknown key" in done.stderr and done.stdout == ""


def test_extras_of_libraries_are_not_imported_and_can_be_afterwards(tmp_path: Path) -> None:
    script = """
import sys
from stages.shared.core.run import EXTRAS, importing
with importing(EXTRAS):
    import stages.evaluate.evaluate, stages.traces.traces, stages.rl.rl
    from transformers import Trainer
found = [name for name in EXTRAS if name in sys.modules]
assert not found, found
import datasets, pandas, sklearn
with importing(EXTRAS):
    import sklearn.cluster  # what is there stays
"""
    result = python(tmp_path, script)
    assert result.returncode == 0, result.stderr
