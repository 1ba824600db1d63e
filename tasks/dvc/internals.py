"""All that is used of DVC without its promise to keep it: private names, and modules that its API page does not list.

https://dvc.org/doc/api-reference lists four functions; none opens a project for writing or says what a run is called in the run
cache. An update of DVC is checked against this file first. DVC takes 0.2 s and more to load, so every caller imports it late.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dvc.config import Config
from dvc.dirs import site_cache_dir
from dvc.exceptions import CheckoutError, DvcException
from dvc.lock import LockError, make_lock
from dvc.output import CollectCacheError
from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro
from dvc.stage.cache import _can_hash, _get_cache_hash, _get_stage_hash
from dvc.utils.serialize import YAMLFileCorruptedError, load_yaml
from dvc_data.hashfile.build import build

__all__ = [
    "CheckoutError",
    "CollectCacheError",
    "Config",
    "DvcException",
    "LockError",
    "cached_run",
    "folder_listing",
    "has_run_key",
    "locked_repo",
    "make_lock",
    "project_lock",
    "repro_order",
    "run_cache_key",
    "run_folder",
    "run_record_name",
    "site_cache_dir",
]

RECORD = re.compile(r"[0-9a-f]{64}")  # DVC's name of a record in the run cache
PASSING_S = 2.0  # that a file has a passing name for, at most: DVC writes a record and moves it at once


@contextmanager
def locked_repo(root: Path) -> Iterator[Any]:
    """DVC's Repo at `root`, locked; waits while another process has the lock (an option that only DVC's command line sets)."""
    repo = Repo(str(root), _wait_for_lock=True)
    try:
        with lock_repo(repo):
            yield repo
    finally:
        repo.close()


def has_run_key(stage: Any) -> bool:
    """Whether DVC's run cache takes the stage: it has deps and outs in the project, none of them persistent."""
    return bool(_can_hash(stage))


def run_cache_key(stage: Any) -> str:
    """DVC's name of a run with the deps and parameters that `stage`, a stage of DVC, has now."""
    return str(_get_stage_hash(stage))


def run_folder(repo: Any, key: str) -> Path:
    """Where the run cache of this machine keeps the records of the runs called `key`."""
    return Path(repo.stage_cache._get_cache_dir(key))


def run_record_name(entry: Any) -> str:
    """Where below its folder the run cache keeps a run with this entry of dvc.lock."""
    key = _get_cache_hash(dict(entry), key=True)
    return f"{key[:2]}/{key}/{_get_cache_hash(dict(entry))}"


def cached_run(repo: Any, stage: Any) -> Any:
    """The stage as the run cache recorded an equal run of it, outputs with their hashes; None without one."""
    _drop_half_written(run_folder(repo, run_cache_key(stage)), {out.def_path for out in stage.outs})
    entry = repo.stage_cache._load(stage)  # drops a record that is no YAML
    return repo.stage_cache._create_stage(entry, wdir=stage.wdir) if entry else None


def _drop_half_written(folder: Path, outs: set[str]) -> None:
    """Removes from a folder of the run cache what a killed process left there, whether under a passing name or half of a record.

    DVC takes the newest file of the folder for a record, whatever its name is, and half of one can be valid YAML with some outputs.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(FileNotFoundError):  # another process moved it, or dropped it too
            if RECORD.fullmatch(path.name) is None:
                # Experiments share the cache without sharing a lock, and one may be about to move this file to its place.
                if abs(time.time() - path.stat().st_mtime) > PASSING_S:
                    path.unlink()
            elif _recorded_outs(path) != outs:
                path.unlink()
    with suppress(OSError):  # not there, or not empty
        folder.rmdir()  # DVC fails on an empty one, as a kill leaves between the making of the folder and the first file


def _recorded_outs(path: Path) -> set[str]:
    try:
        return {out["path"] for out in load_yaml(path)["outs"] if out.get("md5")}
    except (YAMLFileCorruptedError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        return set()


def folder_listing(dataset: Any) -> dict[str, str]:
    """path -> md5 of the files in a folder, a dep or output of DVC's stage, as they are now, without what .dvcignore leaves out.

    Files that did not change since DVC last looked are not read again: it remembers their hashes by time and size.
    """
    files: Any  # DVC declares less: an object of any kind
    _, _, files = build(dataset.repo.cache.local, dataset.fs_path, dataset.fs, dataset.hash_name, ignore=dataset.dvcignore, dry_run=True)
    return {"/".join(key): hash_info.value for key, _, hash_info in files}


def repro_order(repo: Any, targets: list[str]) -> list[str]:
    """The stages in the order in which `dvc repro targets` deals with them."""
    stages = collect_stages(repo, targets)
    return [stage.name for stage in plan_repro(get_active_graph(repo.index.graph), stages)]


@contextmanager
def project_lock(root: Path) -> Iterator[None]:
    """DVC's lock of the project at `root`, under which it writes dvc.lock; waits while another process has it."""
    folder = root / ".dvc" / "tmp"
    folder.mkdir(exist_ok=True)
    hard = bool(Config(str(root / ".dvc"))["core"].get("hardlink_lock"))
    with make_lock(str(folder / "lock"), tmp_dir=str(folder), hardlink_lock=hard, wait=True):
        yield
