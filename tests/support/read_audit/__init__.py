"""Records which files of the project each stage reads: `record` gives the environment of a run, `read` what its stages have read."""

import json
import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

HOOK = Path(__file__).parent / "hook"  # holds the sitecustomize.py that Python imports at its start


@dataclass
class Reads:
    """Of one stage and the processes it started: `files` relative to the project, `sections` of params.yaml through load_params."""

    files: set[str] = field(default_factory=set)
    sections: set[str] = field(default_factory=set)


def record(project: Path, folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """`environment`, in which the stages of `project` write to `folder` what they read."""
    folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(filter(None, [str(HOOK), environment.get("PYTHONPATH")]))
    return {**environment, "PYTHONPATH": path, "READ_AUDIT_PROJECT": str(project.resolve()), "READ_AUDIT_FOLDER": str(folder)}


def read(folder: Path) -> dict[str, Reads]:
    """Stage -> what it read."""
    stages: dict[str, Reads] = defaultdict(Reads)
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            kind, name = json.loads(line)
            (stages[path.name.split(".")[0]].files if kind == "file" else stages[path.name.split(".")[0]].sections).add(name)
    return dict(stages)
