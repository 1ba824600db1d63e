"""Outputs that appear whole or not at all: written elsewhere first, then moved into place."""

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from stages.shared.core.errors import StageError

DATA = Path("data")


class Outputs:
    """Collects what a stage writes in a hidden folder next to its own; `publish` moves it all into `data/<stage>`."""

    def __init__(self, stage: str, root: Path = DATA, final: Path | None = None):
        self.final = final or root / stage
        self.staging = root / f".{stage}.partial"

    def path(self, name: str) -> Path:
        """Where to write the output `name` (a file, or a folder the caller makes)."""
        path = self.staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def metrics(self, values: Mapping[str, Any], model: type[BaseModel]) -> None:
        """Writes metrics.json: sorted keys, so equal numbers give equal bytes. NaN and infinity are refused.

        `model` describes every key. pydantic's ValidationError, which names the key, is a mistake in the stage's code and not caught.
        """
        model.model_validate(values)
        # The values as they are, not the model's dump: an optional key that is absent stays absent.
        write_json(self.path("metrics.json"), values)

    def publish(self) -> None:
        self.final.mkdir(parents=True, exist_ok=True)
        for source in sorted(self.staging.iterdir()):
            target = self.final / source.name
            # A file is replaced in one step; a folder cannot be, so the old one is removed first.
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            os.replace(source, target)
        self.staging.rmdir()


@contextmanager
def stage_outputs(stage: str, root: Path = DATA, main: bool = True, final: Path | None = None) -> Iterator[Outputs]:
    """The outputs of one run of `stage`: published (into `final`) when the block ends well, thrown away when it does not.

    Of several processes only the `main` one publishes; what the others write is thrown away.
    """
    outputs = Outputs(stage, root, final)
    if not main:
        # All processes of a node share this disk.
        outputs.staging = outputs.staging.with_name(f"{outputs.staging.name}.{os.getpid()}")
    shutil.rmtree(outputs.staging, ignore_errors=True)
    outputs.staging.mkdir(parents=True)
    try:
        yield outputs
        if main:
            outputs.publish()
    finally:
        shutil.rmtree(outputs.staging, ignore_errors=True)


def write_json(path: Path, values: Any) -> None:
    """JSON with sorted keys; a NaN or infinity raises StageError naming its key."""
    bad = first_non_finite(values)
    if bad:
        raise StageError(f"{path.name}: {bad} is not a finite number; the stage's inputs or learning rate need a look")
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StageError(f"{path}: no such file; run the stage that makes it: gr2 run {path.parent.name}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StageError(f"{path}: not valid UTF-8 JSON: {error}") from None


def first_non_finite(value: Any, key: str = "") -> str:
    """The dotted key of the first NaN or infinity in what a JSON file holds; empty where all numbers are finite."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else key or "the value"
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in items:
        if bad := first_non_finite(part, f"{key}.{name}" if key else str(name)):
            return bad
    return ""
