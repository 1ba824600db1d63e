"""Objects in DVC's cache: damaged ones are found before a stage's outputs come back from there, unused ones deleted.

DVC takes an object of its cache for what its name says, so the objects are hashed here. DVC's modules are imported late: they take 0.2 s
and more to load.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tasks.dvc.dir_listing import cache_folder
from tasks.dvc.lockfile import Entry
from tasks.dvc.repo import named_stage, open_repo
from tasks.project.graph import Stage
from tasks.system.errors import ProjectError
from tasks.system.yaml_files import parse


def drop_damaged(root: Path, stage: Stage) -> list[str]:
    """Removes the damaged of the objects from which DVC would restore `stage`, by dvc.lock or by its record of an equal run; returns them.

    DVC then fetches or makes them anew.
    """
    with open_repo(root) as repo:
        return [path for holder in _holders(repo, stage) for path in drop_damaged_of(holder.outs, root)]


def drop_damaged_of(outs: Iterable[Any], root: Path) -> list[str]:
    """The same for `outs` of a Repo at `root` that is open."""
    cached = [out for out in outs if out.use_cache and out.hash_info and out.hash_info.name == "md5"]
    # md5-dos2unix is DVC 2's hash, an etag a remote's: neither is the md5 of the bytes, so neither can be checked here.
    return [_drop(path, root) for out in cached for path in _damaged(out.cache, out.hash_info.value)]


def in_run_cache(root: Path, entry: Entry) -> bool:
    """Whether DVC's run cache has the run with this entry of dvc.lock: DVC puts there what `dvc repro` ran, or `dvc commit` took."""
    from tasks.dvc.internals import run_record_name

    record = cache_folder(root).parents[1] / "runs" / run_record_name(entry)
    try:
        return bool(parse(record.read_text(encoding="utf-8"), str(record)) == entry)
    except (OSError, ValueError, ProjectError):  # none, or none that can be read
        return False


def delete_unused(odb: Any, used: Iterable[str]) -> None:
    """Deletes every object of DVC's object store `odb` whose hash is not in `used`."""
    from dvc_data.hashfile.db import get_index
    from dvc_data.hashfile.gc import gc
    from dvc_data.hashfile.hash_info import HashInfo

    if gc(odb, [HashInfo(odb.hash_name, md5) for md5 in used]):
        get_index(odb).clear()  # what DVC believes to be there


def _holders(repo: Any, stage: Stage) -> Iterator[Any]:
    from tasks.dvc.internals import cached_run, has_run_key  # DVC is loaded by now

    dvc_stage = named_stage(repo, stage.name)
    yield dvc_stage
    # The key of a run is made of the hashes of its deps, so DVC has to hash these as they are now.
    if all(dep.exists for dep in dvc_stage.deps) and has_run_key(dvc_stage):
        dvc_stage.save_deps()
        if recorded := cached_run(repo, dvc_stage):
            yield recorded


def _damaged(odb: Any, md5: str) -> Iterator[Path]:
    """A missing object is none: DVC sees that itself."""
    path = Path(odb.oid_to_path(md5))
    if not path.exists():
        return
    with path.open("rb") as file:
        content = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if content != md5.removesuffix(".dir"):
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
