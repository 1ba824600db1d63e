"""What the stages of the smoke run read of the project is what dvc.yaml declares."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from tasks.project.graph import Stage, holds, read_graph
from tests.support import read_audit
from tests.support.project_clone import STAGES, SmokeRun

pytestmark = pytest.mark.slow

# It shows the parameters of every stage that it declares, so it reads the file, not one section.
READS_PARAMS_WHOLE = {"report"}
# Inputs that the smoke profile does not need: embed reads interactions where it learns vectors from them, retrieve the users' own ids where
# it reads logged slates, mid-training the codebooks where
# the rows of new tokens start from them, sft the features of candidates where it validates by ranking, and prompts show rules of the domain
# only where prompt.domain_rules asks for some. Nothing is distilled, so nothing is read for it. rl reads traces where it takes SFT steps
# (rl.allocation.relift_batch).
RULES = ["data/retrieve/domain_rules.json"]
NOT_READ = {
    "embed": ["data/ingest/interactions.parquet"],
    "retrieve": ["data/ingest/users.parquet"],
    "midtrain": ["data/tokenize/codebooks.safetensors"],
    "traces": RULES,
    "sft": ["data/retrieve/candidate_features.parquet", *RULES],
    "distil": [
        "data/sft/model",
        "data/retrieve/slates.parquet",
        "data/retrieve/candidate_features.parquet",
        *RULES,
        "data/tokenize/sids.parquet",
        "data/ingest/items.parquet",
        "data/ingest/interactions.parquet",
    ],
    "rl": ["data/traces/traces.parquet", *RULES],
    "evaluate": RULES,
}


def source_of(path: str) -> str:
    """The module whose compiled form `path` is: stages/rl/__pycache__/update.cpython-311.pyc -> stages/rl/update.py."""
    file = Path(path)
    return str(file.parent.parent / f"{file.name.split('.')[0]}.py") if file.parent.name == "__pycache__" else path


def is_docstring_alone(path: Path) -> bool:
    """A module whose change changes nothing: `stages/shared/__init__.py`."""
    return path.suffix == ".py" and all(isinstance(node, ast.Expr) for node in ast.parse(path.read_text(encoding="utf-8")).body)


def undeclared(root: Path, stage: Stage, files: set[str]) -> list[str]:
    declared = [*stage.deps, f"data/{stage.name}", f"data/.{stage.name}", ".gr2"]  # the last three: its own outputs, drafts, resume points
    sources = {source_of(path) for path in files} - {"params.yaml"}
    return sorted(
        path
        for path in sources
        if not any(holds(dep, path) or path.startswith(f"data/.{stage.name}") for dep in declared)
        and (root / path).is_file()
        and not is_docstring_alone(root / path)
    )


@pytest.mark.parametrize("name", STAGES)
def test_no_file_is_read_that_is_not_declared(smoke: SmokeRun, name: str) -> None:
    reads = read_audit.read(smoke.reads)[name]
    stage = read_graph(smoke.root)[name]
    assert undeclared(smoke.root, stage, reads.files) == []


@pytest.mark.parametrize("name", STAGES)
def test_no_section_of_params_is_read_that_is_not_declared(smoke: SmokeRun, name: str) -> None:
    reads = read_audit.read(smoke.reads)[name]
    declared = {key.split(".")[0] for key in read_graph(smoke.root)[name].params["params.yaml"]}
    assert reads.sections and reads.sections <= declared
    assert ("params.yaml" in reads.files) == (name in READS_PARAMS_WHOLE), "params.yaml is read through load_params"


@pytest.mark.parametrize("name", STAGES)
def test_the_recorder_sees_what_is_declared(smoke: SmokeRun, name: str) -> None:
    """It would prove nothing if it saw nothing: each input that is a file, and a file of each that is a folder, was seen to be read."""
    files = read_audit.read(smoke.reads)[name].files
    inputs = [dep for dep in read_graph(smoke.root)[name].deps if dep.startswith("data/")]
    empty = [dep for dep in inputs if (smoke.root / dep).is_dir() and not any((smoke.root / dep).iterdir())]
    unseen = [dep for dep in inputs if dep not in empty and not any(holds(dep, path) for path in files)]
    assert unseen == NOT_READ.get(name, [])


PLANTED = """\
import pathlib, subprocess, sys
import importlib.util
importing = importlib.util.find_spec("polars")  # as transformers does to learn whether it is installed
import numpy, polars
from safetensors.numpy import load_file, save_file
from stages.shared.core.params import load_params
polars.DataFrame({"a": [1]}).write_parquet("data/written.parquet")
polars.read_parquet("data/read.parquet")
polars.read_csv(b"data/content\\n")  # a column of that name, no file
load_file("data/read.safetensors")
load_params("a")
subprocess.run([sys.executable, "-c", "open('data/child.txt')"], check=True)
if sys.argv[1:]:
    pathlib.Path("params.yaml").read_text()
"""


def test_the_recorder_on_planted_reads(tmp_path: Path) -> None:
    files = {
        "stages/__init__.py": "",
        "stages/a/__init__.py": "",
        "stages/a/__main__.py": PLANTED,
        "stages/shared/__init__.py": '"""Nothing."""\n',
        "stages/shared/core/__init__.py": "",
        "stages/shared/core/params.py": "def load_params(section):\n    return open('params.yaml').read()\n",
        "params.yaml": "a: {}\n",
        "data/child.txt": "",
    }
    for name, text in files.items():
        (tmp_path / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "project" / name).write_text(text)
    root = tmp_path / "project"
    pl.DataFrame({"a": [1]}).write_parquet(root / "data/read.parquet")
    save_file({"a": np.zeros(1)}, root / "data/read.safetensors")
    environment = read_audit.record(root, tmp_path / "reads", dict(os.environ))

    def run(*words: str) -> read_audit.Reads:
        subprocess.run([sys.executable, "-m", "stages.a", *words], cwd=root, env=environment, check=True)
        return read_audit.read(tmp_path / "reads")["a"]

    reads = run()
    assert reads.sections == {"a"}
    assert {path for path in reads.files if not path.startswith("stages/")} == {
        "data/child.txt",
        "data/read.parquet",
        "data/read.safetensors",
    }
    stage = Stage("a", "python -m stages.a", deps=("stages/a", "stages/shared/core", "data/read.parquet"))
    assert undeclared(root, stage, reads.files) == ["data/child.txt", "data/read.safetensors"]
    assert "params.yaml" in run("whole").files
