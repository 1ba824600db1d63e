"""What DVC knows: which stages are current, and the hashes it recorded in dvc.lock. The one place that opens DVC in this process."""

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from typing import Any

from tasks.system.errors import ProjectError
from tasks.system.redaction import without_secrets
from tasks.system.yaml_files import parse

_turn = threading.RLock()


@contextmanager
def opened(root: Path) -> Iterator[Any]:
    """DVC's Repo at `root`, locked (DVC wants that even for reading); waits while another process commits.

    Threads take turns. DVC's own errors come out as ProjectError.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo, lock_repo

    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    try:
        with _turn:
            _mend_rwlock(root)
            repo = Repo(str(root), _wait_for_lock=True)
            try:
                with lock_repo(repo), chdir(root):  # DVC names things relative to the current directory, which is the whole process's
                    yield repo
            finally:
                repo.close()
    except DvcException as error:
        remedy = "; run: dvc init" if type(error).__name__ == "NotDvcRepoError" else ""
        raise ProjectError(f"DVC: {without_secrets(_messages(error))}{remedy}") from None


def _mend_rwlock(root: Path) -> None:
    """Removes DVC's record of who reads and writes what when a killed DVC left it half written: DVC would refuse to work for ever.

    Under DVC's own lock of that record: while a living process writes it, nothing is done.
    """
    from dvc.lock import LockError, make_lock

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


def share_cache(root: Path, copy: Path) -> None:
    """Has DVC in the workspace `copy` keep its cache where the project at `root` keeps it, in its own local configuration."""
    from dvc.config import Config

    with opened(root) as repo:
        given = repo.config.get("cache", {})
        settings = {"dir": str(repo.cache.local_cache_dir)} | {key: given[key] for key in ("type", "shared") if given.get(key)}
    (copy / ".dvc").mkdir(exist_ok=True)
    with Config(str(copy / ".dvc")).edit("local") as config:
        config["cache"] = settings


def read_lock(root: Path) -> dict[str, Any]:
    """The stages of dvc.lock by name: cmd, deps, params, outs as DVC wrote them; empty when nothing ever ran."""
    path = root / "dvc.lock"
    if not path.exists():
        return {}
    document = parse(path.read_text(encoding="utf-8"), "dvc.lock")
    stages = document.get("stages", {}) if isinstance(document, dict) else {}
    return dict(stages or {})


def locked_hashes(entries: list[dict[str, Any]] | None) -> dict[str, dict[str, Any]]:
    """path -> {"hash", "size"} of the deps or outs of a dvc.lock stage."""
    return {entry["path"]: {"hash": entry.get("md5") or "", "size": entry.get("size")} for entry in entries or []}


def order_like_dvc(root: Path, before: list[str], targets: list[str] | None) -> None:
    """Puts stages that are new in dvc.lock where plain `dvc repro [targets]` would have put them.

    DVC appends a stage when it ends; stages side by side end in any order, so without this two runs would give
    equal hashes in files that differ. `before`: the names in dvc.lock, in order, when the run began.
    """
    now = list(read_lock(root))
    if set(now) - set(before) == set() or now == before:
        return
    with opened(root) as repo:
        from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro
        from dvc.utils.serialize import modify_yaml

        stages = collect_stages(repo, targets or ["dvc.yaml"])
        plan = [stage.name for stage in plan_repro(get_active_graph(repo.index.graph), stages)]
        known = set(before)
        wanted = [*before, *(name for name in plan if name not in known)]
        with modify_yaml(str(root / "dvc.lock")) as document:
            entries = document["stages"]
            rank = {name: place for place, name in enumerate(wanted)}
            for name in sorted(entries, key=lambda name: rank.get(name, len(rank))):
                entries[name] = entries.pop(name)


def _messages(error: BaseException) -> str:
    parts = [str(error)]
    while error.__cause__:
        error = error.__cause__
        if str(error) not in parts:
            parts.append(str(error))
    return ": ".join(parts)
