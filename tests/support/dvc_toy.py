"""A small real project for tests: git, DVC, and a diamond of stages (a -> b, c -> d) written as modules, as the real ones are."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

TIMEOUT_S = 1800
ROOT = Path(__file__).resolve().parents[2]
PARAMS = "a:\n  x: 1\nb:\n  x: 1\n  deep:\n    y: 2\nc:\n  x: 1\nd:\n  x: 1\n"
UPSTREAM: dict[str, list[str]] = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}

MAIN = """\
import json, pathlib, sys, time
import yaml
from stages.{name}.words import WORDS
began = time.time()
params = yaml.safe_load(open("params.yaml"))["{name}"]
print("hello from {name}")
time.sleep(params.get("sleep", 0))
while pathlib.Path("hold").exists():
    time.sleep(0.05)
if "fail" in params:
    sys.exit("{name}: " + params["fail"])
text = "".join(pathlib.Path(path).read_text() for path in {inputs!r}) + WORDS + str(params["x"]) + "\\n"
folder = pathlib.Path("data/{name}")
(folder / "model").mkdir(parents=True, exist_ok=True)
(folder / "out.txt").write_text(text)
(folder / "model" / "weights.bin").write_text(text)
metrics = {{"length": len(text)}}
if "{name}" == "a":
    metrics["raw"] = {{"name": "raw.txt", "sha256": "0" * 64, "bytes": 3, "rows": 1}}
(folder / "metrics.json").write_text(json.dumps(metrics))
pathlib.Path("spans").mkdir(exist_ok=True)
pathlib.Path("spans/{name}").write_text(f"{{began}} {{time.time()}}")
"""


def make(folder: Path, params: str = PARAMS) -> Path:
    """The diamond at `folder`, committed, nothing run."""
    entries = []
    for name, upstream in UPSTREAM.items():
        inputs = [f"data/{other}/out.txt" for other in upstream]
        package = folder / "stages" / name
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(MAIN.format(name=name, inputs=inputs))
        (package / "words.py").write_text(f'WORDS = "{name}"\n')
        entries.append(
            f"  {name}:\n    cmd: python -m stages.{name}\n    params: [{name}]\n"
            f"    deps: [{', '.join([f'stages/{name}', 'stages/__init__.py', *inputs])}]\n"
            f"    outs: [data/{name}/out.txt, data/{name}/model]\n    metrics: [data/{name}/metrics.json]\n"
        )
    (folder / "stages" / "__init__.py").touch()
    (folder / "dvc.yaml").write_text("stages:\n" + "".join(entries))
    (folder / "params.yaml").write_text(params)
    (folder / ".gitignore").write_text("/data/*/\n/.gr2/\n/spans/\n__pycache__/\n")
    return start(folder)


def start(folder: Path) -> Path:
    """Makes the files at `folder` a project of git and DVC, with DVC's settings of the real one, and commits them."""
    call(folder, "git", "init", "-q", "-b", "main")
    for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore"):  # all that `dvc init` writes, in a hundredth of its time
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    commit(folder, "start")
    return folder


def copy(of: Path, to: Path) -> Path:
    """`of` at `to`, with links and times: what was current there is so here, and a test may do with it what it likes."""
    subprocess.run(["cp", "-a", str(of), str(to)], check=True)
    return to


def commit(folder: Path, message: str) -> None:
    call(folder, "git", "add", "-A")
    call(folder, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", message)


def call(folder: Path, *command: str, ok: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs `command` in `folder`."""
    full = {**environment(), **env}
    result = subprocess.run(command, cwd=folder, env=full, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert not ok or result.returncode == 0, f"{command}: {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


def environment() -> dict[str, str]:
    """In which the stages' `python` is the one of the tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}


def dvc(folder: Path, *words: str, ok: bool = True) -> str:
    return call(folder, sys.executable, "-m", "dvc", *words, ok=ok).stdout


def gr2(folder: Path, *words: str, ok: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """The command line, in its own process."""
    return call(folder, sys.executable, "-m", "flows.cli", *words, ok=ok, **{"PYTHONPATH": str(ROOT), **env})


def set_param(folder: Path, old: str, new: str) -> None:
    text = (folder / "params.yaml").read_text()
    assert old in text
    (folder / "params.yaml").write_text(text.replace(old, new, 1))


def states(result: subprocess.CompletedProcess[Any]) -> dict[str, str]:
    """stage -> state, from the closing table."""
    rows = result.stdout[result.stdout.rindex("stage ") :].split("\n\n")[0].splitlines()[1:]
    return {row.split()[0]: row.split()[1] for row in rows if row.strip()}
