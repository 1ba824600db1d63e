"""Clones of this very project for whole runs: the working tree as it stands, with its own repository and DVC cache."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tasks.dvc.lockfile import locked_hashes, read_lock

ROOT = Path(__file__).resolve().parents[2]
LANGUAGE_MODEL_STAGES = ("midtrain", "traces", "sft", "distil", "rl", "quantize", "evaluate")
STAGES = ("fetch", "ingest", "embed", "tokenize", "retrieve", *LANGUAGE_MODEL_STAGES, "report")
TIMEOUT_S = 1800
server = ""  # address of the Prefect server for all runs but the first (conftest.py)


@dataclass(frozen=True)
class SmokeRun:
    """The run that the tests share. `root`: its clone; `states`: by stage, after the first run; `reads`: what its stages read."""

    root: Path
    states: dict[str, str]
    reads: Path


def clone(folder: Path) -> Path:
    """The working tree as git would hold it, uncommitted files too, committed at `folder`. Without dvc.lock: nothing ever ran."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "clone"]):
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """That of a person who works in the clone: its code, this interpreter as `python`, hashes of strings left to chance.

    Once `server` is set, runs use that Prefect server: a server for each run costs half a dozen seconds.
    """
    dropped = {"PYTHONHASHSEED", "PREFECT_API_URL", "PREFECT_HOME", "OMP_NUM_THREADS", "VIRTUAL_ENV"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1", **({"PREFECT_API_URL": server} if server else {})}


def call(folder: Path, *command: str, ok: bool = True, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `command` in the clone at `folder`; AssertionError with all it said when it fails and `ok`."""
    result = subprocess.run(
        command,
        cwd=folder,
        env=env or environment(folder),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert not ok or result.returncode == 0, f"{command}: {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


def gr2(folder: Path, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
    return call(folder, sys.executable, "-m", "flows.cli", *words, ok=ok)


def stage(folder: Path, name: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
    """One stage by itself, without DVC."""
    return call(folder, sys.executable, "-m", f"stages.{name}", ok=ok)


def states(result: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """stage -> Completed, Cached, Failed or Skipped, from the closing table of `gr2 run`."""
    rows = result.stdout[result.stdout.rindex("stage ") :].split("\n\n")[0].splitlines()[1:]
    return {row.split()[0]: row.split()[1] for row in rows if row.strip()}


def planned(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The causes of each stage that `gr2 plan` would run."""
    plan = json.loads(gr2(folder, "plan", "--json").stdout)
    return {stage["name"]: stage["causes"] for stage in plan["stages"] if stage["action"] == "run"}


def output_hashes(folder: Path) -> dict[str, str]:
    """path -> hash of every output that dvc.lock records."""
    return {path: entry["hash"] for own in read_lock(folder).values() for path, entry in locked_hashes(own["outs"]).items()}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def copy_data(source: Path, target: Path) -> None:
    """params.yaml and data/ of one clone into another: what is needed to run a stage by itself there."""
    shutil.copy2(source / "params.yaml", target)
    shutil.copytree(source / "data", target / "data", dirs_exist_ok=True)


def copy_run_cache(source: Path, target: Path, stages: set[str]) -> None:
    """DVC's cache of one clone into another; of its record of runs, which inputs gave which outputs, that of `stages` alone."""
    cache, commands = Path(".dvc/cache"), {f"python -m stages.{stage}" for stage in stages}
    shutil.copytree(source / cache / "files", target / cache / "files")
    for path in (source / cache / "runs").glob("*/*/*"):
        if yaml.safe_load(path.read_text(encoding="utf-8"))["cmd"] in commands:
            (target / path.relative_to(source)).parent.mkdir(parents=True)
            shutil.copy2(path, target / path.relative_to(source))


def metrics(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((folder / "data" / name / "metrics.json").read_text(encoding="utf-8")))


def set_params(folder: Path, **sections: dict[str, Any]) -> None:
    """Puts values into params.yaml by section, e.g. rl={"lr": 0.1}; a mapping goes into the mapping that is there."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    path = folder / "params.yaml"
    document = yaml.load(path.read_text(encoding="utf-8"))
    for section, values in sections.items():
        for key, value in values.items():
            document[section][key] = {**document[section][key], **value} if isinstance(value, dict) else value
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(document, file)


@contextmanager
def restored(*paths: Path) -> Iterator[None]:
    """What the block does to these files is undone."""
    before = {path: path.read_bytes() for path in paths}
    try:
        yield
    finally:
        for path, content in before.items():
            path.write_bytes(content)
