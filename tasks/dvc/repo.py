"""A project opened with DVC in this process, its configuration, and which of its stages are current. The one place that opens it.

DVC is imported inside the functions: it takes 0.2 s and more to load, and most commands read dvc.lock alone.
"""

import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tasks.system.disk_watchdog import check_room
from tasks.system.errors import ProjectError
from tasks.system.redaction import without_secrets

_turn = threading.RLock()
_open: list[Path] = []  # the projects whose lock this process has, in the thread that holds _one_at_a_time


@contextmanager
def open_repo(root: Path) -> Iterator[Any]:
    """DVC's Repo at `root`, locked (DVC wants that even for reading); waits while another process commits.

    Threads take turns. DVC's own errors come out as ProjectError.
    """
    from tasks.dvc.internals import DvcException, locked_repo
    from tasks.dvc.lock_copy import mend

    # What DVC logs would stand beside the one message that the command prints.
    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    try:
        with _turn:
            check_room((root, state_folder()))
            _repair_rwlock(root)
            with locked_repo(root) as repo, chdir(root):  # DVC names things relative to the current directory, which is the whole process's
                mend(root)
                _open.append(root.resolve())
                try:
                    yield repo
                finally:
                    _open.pop()
    except DvcException as error:
        remedy = "; run: dvc init" if type(error).__name__ == "NotDvcRepoError" else ""
        raise ProjectError(f"DVC: {without_secrets(_messages(error))}{remedy}") from None


@contextmanager
def dvc_lock(root: Path) -> Iterator[None]:
    """DVC's lock of the project at `root`, which need not be opened for it: while it is held, no other process writes dvc.lock."""
    from tasks.dvc.internals import project_lock

    with _turn:
        # DVC's lock is no RLock: asking again in the same process would wait for itself. Without .dvc there is nothing to lock.
        if root.resolve() in _open or not (root / ".dvc").is_dir():
            yield
        else:
            with project_lock(root):
                _open.append(root.resolve())
                try:
                    yield
                finally:
                    _open.pop()


def mend_lock(root: Path) -> None:
    """Puts dvc.lock right if a killed DVC left it cut (tasks.dvc.lock_copy)."""
    from tasks.dvc.lock_copy import mend

    with dvc_lock(root):
        mend(root)


def named_stage(repo: Any, name: str) -> Any:
    """DVC's own stage of that name in dvc.yaml."""
    return next(stage for stage in repo.index.stages if getattr(stage, "name", None) == name)


def default_remote(root: Path) -> str:
    """The name of DVC's default remote; empty without one."""
    with open_repo(root) as repo:
        return str(repo.config["core"].get("remote") or "")


def share_cache(root: Path, copy: Path) -> None:
    """Has DVC in the workspace `copy` keep its cache where the project at `root` keeps it, in the copy's local configuration."""
    with open_repo(root) as repo:
        cache_config = repo.config.get("cache", {})
        settings = {"dir": str(repo.cache.local_cache_dir)} | {
            key: cache_config[key] for key in ("type", "shared") if cache_config.get(key)
        }
    configure_cache(copy, settings)


def configure_cache(root: Path, settings: dict[str, object], keep: bool = False) -> None:
    """Writes the cache section of the local configuration (.dvc/config.local) at `root`; with `keep`, values that it has already stay."""
    from tasks.dvc.internals import Config

    target = root / ".dvc" / "config.local"
    target.parent.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=target.parent) as folder:  # DVC writes in place: a kill would leave a configuration that it cannot read
        copy = Path(folder) / target.name
        if target.exists():
            shutil.copyfile(target, copy)
        with Config(folder).edit("local") as config:
            config["cache"] = settings | (config.get("cache", {}) if keep else {})
        os.replace(copy, target)


def state_folder() -> Path:
    """Where DVC keeps its databases of file states, outside of the project."""
    from tasks.dvc.internals import site_cache_dir

    return Path(site_cache_dir())


def _repair_rwlock(root: Path) -> None:
    """Removes DVC's record of who reads and writes what when a killed DVC left it half written: DVC would refuse to work for ever.

    Under DVC's own lock of that record: while a living process writes it, nothing is done.
    """
    from tasks.dvc.internals import LockError, make_lock

    folder = root / ".dvc" / "tmp"
    record = folder / "rwlock"
    if not record.exists() or _is_json(record):
        return
    with suppress(LockError), make_lock(str(folder / "rwlock.lock"), tmp_dir=str(folder)):
        if record.exists() and not _is_json(record):
            record.unlink()


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def _messages(error: BaseException) -> str:
    """The message of `error` and those of its causes, each once: DVC often puts the reason into the cause alone."""
    messages = [str(error)]
    while error.__cause__:
        error = error.__cause__
        if str(error) not in messages:
            messages.append(str(error))
    return ": ".join(messages)
