"""DVC takes an object of its cache for what its name says. Before a stage's outputs come back from there, the objects are hashed."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tasks.dvc.repo import opened
from tasks.project.graph import Stage
from tasks.system.errors import ProjectError


def drop_damaged(root: Path, stage: Stage) -> list[str]:
    """Removes the damaged of the objects from which DVC would restore `stage`, by dvc.lock or by its record of an equal run; returns them.

    DVC then fetches or makes them anew.
    """
    with opened(root) as repo:
        return [path for holder in _holders(repo, stage) for path in drop_damaged_of(holder.outs, root)]


def drop_damaged_of(outs: Iterable[Any], root: Path) -> list[str]:
    """The same for `outs` of a Repo at `root` that is open."""
    cached = [out for out in outs if out.use_cache and out.hash_info and out.hash_info.name == "md5"]
    return [_drop(path, root) for out in cached for path in _damaged(out.cache, out.hash_info.value)]


def _holders(repo: Any, stage: Stage) -> Iterator[Any]:
    from dvc.stage.cache import _can_hash

    own = next(found for found in repo.index.stages if getattr(found, "name", None) == stage.name)
    yield own
    if all(dep.exists for dep in own.deps) and _can_hash(own):
        own.save_deps()
        if entry := repo.stage_cache._load(own):
            yield repo.stage_cache._create_stage(entry, wdir=own.wdir)


def _damaged(odb: Any, md5: str) -> Iterator[Path]:
    """A missing object is none: DVC sees that itself."""
    path = Path(odb.oid_to_path(md5))
    if not path.exists():
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5.removesuffix(".dir"):
        yield path
    elif md5.endswith(".dir"):
        for member in {entry["md5"] for entry in json.loads(path.read_text(encoding="utf-8"))}:
            yield from _damaged(odb, member)


def _drop(path: Path, root: Path) -> str:
    name = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ProjectError(f"{name}: is damaged and cannot be removed ({error.strerror}); remove it, then run again") from None
    return name
