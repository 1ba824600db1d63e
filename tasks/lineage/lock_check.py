"""dvc.lock against what the record and git know of it: as a whole, byte for byte, and stage by stage."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tasks.dvc.cache import in_run_cache
from tasks.dvc.dep_listing import dep_listings
from tasks.dvc.lockfile import Entry, as_dvc_writes, locked_hashes
from tasks.ledger.events import entry_hash, recorded_entry
from tasks.ledger.lines import Event
from tasks.lineage.git_history import Lock, Parser, git_locks
from tasks.lineage.versions import Hashes, Version, of_entry, of_event
from tasks.project.dict_diff import differences, format_value
from tasks.project.graph import read_graph
from tasks.project.shards import stage_names
from tasks.project.templates import Templates
from tasks.system.errors import ProjectError
from tasks.system.yaml_files import parse, read_text


@dataclass(frozen=True)
class LockFault:
    what: str
    remedy: str


def check_lock(root: Path, lock: dict[str, Entry], events: list[Event]) -> list[LockFault]:
    """A fault for each entry that neither git nor the record has, with its differences from the most similar known one.

    When all entries are known: a fault if the text of the file is one that neither a run nor DVC wrote.
    """
    text = (root / "dvc.lock").read_bytes() if (root / "dvc.lock").exists() else b""
    if not text and not lock:
        return (
            [LockFault("is missing, though the record has runs", "git checkout dvc.lock")] if any(map(_is_completed_stage, events)) else []
        )
    locks = git_locks(root)
    # A file that a commit has byte for byte is as good as that commit; the record need not know it.
    if any(text == git_lock.text for git_lock in locks):
        return []
    run_events = [event for event in events if _is_completed_stage(event)]
    if dropped := _dropped(root, lock, run_events):
        return dropped
    # By stage: the entry of one stage under the name of another is not known.
    hashes = {(str(event["job"]["name"]), recorded_entry(event)) for event in run_events}
    old = [event for event in run_events if not recorded_entry(event)]  # from before entries were recorded
    keys = {version.key for event in old if (version := _version(event))}
    unknown = {
        name: entry for name, entry in lock.items() if (name, entry_hash(entry)) not in hashes and of_entry(name, entry).key not in keys
    }
    entries_in_git = _git_entries(locks) if unknown else {}
    unknown = {name: entry for name, entry in unknown.items() if entry not in entries_in_git.get(name, [])}
    if unknown:
        return [_unknown(root, name, entry, entries_in_git.get(name, []), run_events) for name, entry in unknown.items()]
    recorded_texts = {
        str((event["run"]["facets"].get("gr2_lock") or {}).get("text")) for event in events if event["job"]["name"] == "pipeline"
    }
    if hashlib.sha256(text).hexdigest() in recorded_texts:
        return []
    if text.decode("utf-8", "replace") == as_dvc_writes(lock):
        return []  # entries of several runs beside each other, the last of which did not come to its end
    what = "its bytes were changed: its entries are known, but neither a run nor DVC wrote them in this form"
    return [LockFault(what, "git checkout dvc.lock, or put the bytes right")]


def _dropped(root: Path, lock: dict[str, Entry], run_events: list[Event]) -> list[LockFault]:
    """Stages that ran here, and that dvc.yaml still has, without an entry."""
    described = stage_names(parse(read_text(root / "dvc.yaml", "it describes the stages"), "dvc.yaml"), Templates(root))
    workspace_events = [event for event in run_events if not (event["run"]["facets"].get("gr2_run") or {}).get("experiment")]
    dropped_names = dict.fromkeys(
        name for event in workspace_events if (name := str(event["job"]["name"])) in described and name not in lock
    )
    return [
        LockFault(f"{name}: has no entry, though the record has a run of it: it was taken out", f"gr2 run {name}, or git checkout dvc.lock")
        for name in dropped_names
    ]


def _unknown(root: Path, name: str, entry: Entry, in_git: list[Entry], run_events: list[Event]) -> LockFault:
    what, remedy = _written_by(root, name, entry)
    candidates = [_differences(git_entry, entry) for git_entry in in_git]
    lock_version = of_entry(name, entry)
    lock_version.packages = dep_listings(root, name, lock_version.code)  # those that are still what the entry says
    recorded = [version for event in run_events if event["job"]["name"] == name and (version := _version(event))]
    candidates += [_between(version, lock_version) for version in recorded]
    if not candidates:
        return LockFault(f"{name}: {what}; they know no run of {name} at all", remedy)
    # The nearest known entry makes a forgery easy to read: often a single hash differs.
    best = min(candidates, key=len)
    changes = "; ".join(best[:4]) + (f"; and {len(best) - 4} more" if len(best) > 4 else "")
    outputs = {path: content["hash"] for path, content in lock_version.outputs.items()}
    versions = [*recorded, *(of_entry(name, git_entry) for git_entry in in_git)]
    if any({path: content["hash"] for path, content in version.outputs.items()} == outputs for version in versions):
        what += "; its outputs are those of a run that they know"
    return LockFault(f"{name}: {what}; differs from the likest in " + (changes or "sizes or other small print"), remedy)


def _written_by(root: Path, name: str, entry: Entry) -> tuple[str, str]:
    """What can be known of how an entry came about that neither the record nor a commit has, and the remedy."""
    anew = f"gr2 run --force {name} makes it anew on record; git checkout dvc.lock takes the last commit's"
    if not entry.get("deps") or not entry.get("outs"):
        return "neither the record nor a commit has this entry; whether DVC ran the stage cannot be told, for want of deps or outputs", anew
    if _is_of(root, name, entry) and in_run_cache(root, entry):
        what = "neither the record nor a commit has this entry, but DVC's run cache does: dvc repro or dvc commit wrote it, without gr2"
        return what, f"gr2 run --force {name} runs it on record: the same hashes afterwards confirm its outputs; or commit dvc.lock"
    return "neither the record, nor a commit, nor DVC's run cache has this entry: edited, or forged", anew


def _is_of(root: Path, name: str, entry: Entry) -> bool:
    """Whether the stage makes these outputs: DVC's run cache knows no names of stages."""
    try:
        stage = read_graph(root).stages.get(name)
    except ProjectError:
        return False
    return stage is not None and set(stage.outs) == locked_hashes(entry.get("outs")).keys()


def _differences(old: Entry, new: Entry) -> list[str]:
    return [f"{key}: {format_value(before)} -> {format_value(after)}" for key, before, after in differences(_by_path(old), _by_path(new))]


def _by_path(entry: Entry) -> dict[str, object]:
    rows_by_key = {"deps": entry.get("deps"), "outs": entry.get("outs")}
    return {**entry, **{key: {str(row.get("path")): row for row in rows or []} for key, rows in rows_by_key.items()}}


def _between(old: Version, new: Version) -> list[str]:
    """As an event tells it, which has no small print."""
    pairs = [
        ("cmd", old.command, new.command),
        ("", {"params": old.params}, {"params": new.params}),
        ("", {"deps": _code(old, new)}, {"deps": _code(new, old)}),
        ("", {"deps": _sized(old.inputs, new.inputs)}, {"deps": _sized(new.inputs, old.inputs)}),
        ("", {"outs": _sized(old.outputs, new.outputs)}, {"outs": _sized(new.outputs, old.outputs)}),
    ]
    return [
        f"{name}: {format_value(a)} -> {format_value(b)}"
        for key, old_part, new_part in pairs
        for name, a, b in differences(old_part, new_part, key)
    ]


def _code(version: Version, other: Version) -> dict[str, str]:
    """md5 by path: of the files of a package where both versions know them, else of the package."""
    listed_packages = version.packages.keys() & other.packages.keys()
    packages = {path: version.packages[path] if path in listed_packages else {"": md5} for path, md5 in version.code.items()}
    return {f"{path}/{name}" if name else path: md5 for path, files in packages.items() for name, md5 in files.items()}


def _sized(hashes: Hashes, others: Hashes) -> dict[str, dict[str, object]]:
    """md5 and size by path; no size where the other side has none."""
    return {
        path: {"md5": content["hash"], **({"size": content["size"]} if others.get(path, content)["size"] is not None else {})}
        for path, content in hashes.items()
    }


def _git_entries(locks: Iterable[Lock]) -> dict[str, list[Entry]]:
    parser = Parser()
    entries_by_stage: dict[str, list[Entry]] = {}
    for lock in locks:
        for name, entry in parser(lock.text, "dvc.lock in git").items():
            if entry not in (entries := entries_by_stage.setdefault(name, [])):
                entries.append(entry)
    return entries_by_stage


def _is_completed_stage(event: Event) -> bool:
    return bool(event.get("eventType") == "COMPLETE" and event["job"]["name"] != "pipeline")


def _version(event: Event) -> Version | None:
    try:
        return of_event(event)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
