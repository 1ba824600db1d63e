"""The model that a name means: a folder of the run in the current directory, or a version that is brought from elsewhere with its run."""

import json
import subprocess
import sys
from pathlib import Path

from stages.serve.engine.messages import ServedModel
from stages.serve.modes import check_folder
from stages.shared.core.errors import StageError

BRING_S = 3600  # a large model may come from a slow remote


def find_model(name: str, mode: str, one_pass: Path | None, margin: float, versions: str = "") -> ServedModel:
    """name: of a folder (what has a slash in it is one), or where there is none of a version, which the module `versions` brings.

    It prints JSON: the `version`, the folder `run` with the tables that it was trained on, and `model` in there. StageError where there is
    no such folder, or with the last line that the module said otherwise.
    """
    if one_pass:
        check_folder(one_pass)
    first = str(one_pass.absolute()) if one_pass else ""
    if not versions or "/" in name or Path(name).is_dir():
        check_folder(Path(name))
        return ServedModel(name, name, ".", mode, first, margin, name)
    try:
        brought = subprocess.run([sys.executable, "-m", versions, name], capture_output=True, text=True, timeout=BRING_S, check=False)
    except subprocess.TimeoutExpired:
        raise StageError(f"{name}: not brought within {BRING_S} s; look at the remote of DVC") from None
    if brought.returncode:
        said = brought.stderr.strip().splitlines() or [f"{versions} ended with code {brought.returncode}"]
        raise StageError(f"{name}: no folder, and no version: {said[-1]}")
    found = json.loads(brought.stdout.strip().splitlines()[-1])
    return ServedModel(found["version"], found["model"], found["run"], mode, first, margin, name)
