"""Where the evaluated model came from: the chain of stages behind it, read from dvc.lock as plain YAML."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

MODEL = "data/quantize/model"


@dataclass(frozen=True)
class Link:
    """One stage of the chain."""

    stage: str
    outputs: list[tuple[str, str]]  # (path, first 8 digits of its MD5)
    params: dict[str, Any]
    broken: list[str] = field(default_factory=list)  # inputs that are not what the stage before them wrote, by dvc.lock


def model_lineage(output: str = MODEL, lock: Path = Path("dvc.lock")) -> list[Link]:
    """The stages behind `output`, first to last. Empty where dvc.lock is absent or unreadable, or knows no such output.

    Only what the lock holds of stages before this one: it names their outputs' hashes, which are the same in every equal run.
    """
    try:
        document = yaml.safe_load(lock.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, yaml.YAMLError):
        return []
    stages = document.get("stages") if isinstance(document, dict) else None
    if not isinstance(stages, dict):
        return []
    maker = {out["path"]: name for name, stage in stages.items() for out in stage.get("outs", [])}
    written = {out["path"]: out.get("md5", "") for stage in stages.values() for out in stage.get("outs", [])}
    chain: dict[str, Link] = {}

    def visit(path: str) -> None:
        name = maker.get(path)
        if name is None or name in chain:
            return
        stage = stages[name]
        for dep in stage.get("deps", []):
            visit(dep["path"])
        chain[name] = _link(name, stage, written)

    visit(output)
    return list(chain.values())


def _link(name: str, stage: Mapping[str, Any], written: Mapping[str, str]) -> Link:
    params = [values for values in stage.get("params", {}).values() if isinstance(values, dict)]
    return Link(
        stage=name,
        outputs=[(out["path"], str(out.get("md5", ""))[:8]) for out in stage.get("outs", [])],
        params={key: value for values in params for key, value in values.items()},
        broken=[dep["path"] for dep in stage.get("deps", []) if written.get(dep["path"], dep.get("md5")) != dep.get("md5")],
    )
