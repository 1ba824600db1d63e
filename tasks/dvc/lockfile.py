"""dvc.lock: what DVC recorded of each stage's last run. Reading it does not load DVC."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Required, TypedDict, cast

from tasks.system.errors import ProjectError
from tasks.system.yaml_files import parse, write_text

LOCK = "dvc.lock"
HEADER = {"schema": "2.0"}


class LockedData(TypedDict, total=False):
    """A dep or out as DVC wrote it. `md5`: of a folder with .dir behind it, its `nfiles` files; `size` in bytes."""

    path: Required[str]
    md5: str
    size: int
    nfiles: int


class Entry(TypedDict, total=False):
    """A stage in dvc.lock as DVC wrote it, which nothing checks in reading: tasks.lineage.versions.malformed does. `params`: by file."""

    cmd: str | list[str]
    deps: list[LockedData]
    params: dict[str, dict[str, object]]
    outs: list[LockedData]


class Content(TypedDict):
    """A dep or out by its content. `hash`: an md5, of a folder with .dir behind it; `size` in bytes, None where it is not recorded."""

    hash: str
    size: int | None


def read_lock(root: Path, mend: bool = True) -> dict[str, Entry]:
    """The stages of dvc.lock by name; empty when nothing ever ran. With `mend`, a file that a killed DVC left cut is put right first."""
    path = root / LOCK
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace" if mend else "strict")
    if mend:
        from tasks.dvc.lock_copy import is_cut  # it reads with what stands here
        from tasks.dvc.repo import mend_lock

        if is_cut(text):  # or a DVC that lives is about to write the rest: its lock is waited for
            mend_lock(root)
            return parse_lock(path.read_text(encoding="utf-8"), LOCK) if path.exists() else {}
    return parse_lock(text, LOCK)


def parse_lock(text: str, source: str) -> dict[str, Entry]:
    """The stages in the `text` of a dvc.lock; `source` is its name in errors."""
    document = parse(text, source)
    stages = document.get("stages") if isinstance(document, dict) else None
    if stages is not None and not isinstance(stages, dict):
        raise ProjectError(
            f"{source}: stages: a mapping of stages is expected, not {type(stages).__name__}; restore the file: git checkout {LOCK}"
        )
    return cast(dict[str, Entry], dict(stages or {}))


def locked_hashes(entries: Iterable[LockedData] | None) -> dict[str, Content]:
    """path -> content of the deps or outs of a dvc.lock stage."""
    return {entry["path"]: Content(hash=entry.get("md5") or "", size=entry.get("size")) for entry in entries or []}


def recorded_outputs(stages: Mapping[str, Entry]) -> dict[str, str]:
    """path -> hash of every output in the stages of a dvc.lock that has one."""
    outs = [locked_hashes(stage.get("outs")) for stage in stages.values()]
    return {path: content["hash"] for entries in outs for path, content in entries.items() if content["hash"]}


def sort_like_dvc(root: Path, before: list[str], targets: list[str] | None) -> None:
    """Puts stages that are new in dvc.lock where plain `dvc repro [targets]` would have put them.

    DVC appends a stage when it ends; stages side by side end in any order, so without this two runs would give
    equal hashes in files that differ. `before`: the names in dvc.lock, in order, when the run began.
    """
    current = list(read_lock(root))
    if set(current) <= set(before) or current == before:
        return
    # DVC is loaded only here, where a stage was added: most readers of dvc.lock never need it.
    from dvc.utils.serialize import dumps_yaml

    from tasks.dvc import internals
    from tasks.dvc.repo import open_repo

    with open_repo(root) as repo:
        earlier = set(before)
        order = [*before, *(name for name in internals.repro_order(repo, targets or ["dvc.yaml"]) if name not in earlier)]
        rank = {name: position for position, name in enumerate(order)}
        document = parse((root / LOCK).read_text(encoding="utf-8"), LOCK, round_trip=True)
        entries = document["stages"]
        # Moved in place: the rest of the document stays as ruamel has read it.
        for name in sorted(entries, key=lambda name: rank.get(name, len(rank))):
            entries[name] = entries.pop(name)
        write_text(root / LOCK, dumps_yaml(document))


def as_dvc_writes(stages: dict[str, Entry]) -> str:
    """The text that DVC itself would write for a dvc.lock with `stages`."""
    from dvc.utils.serialize import dumps_yaml  # asked for by --verify only

    return str(dumps_yaml({**HEADER, "stages": stages}))
