"""Every hash recomputed: the record and its anchors, dvc.lock against the record and git, the workspace and DVC's cache against dvc.lock.

DVC's own database of file states is not asked: it takes a file's time and size for its content.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.dvc.dep_listing import current_listings
from tasks.dvc.dir_listing import Listing, file_md5, listing_changes, listing_hash
from tasks.dvc.lockfile import Entry, read_lock
from tasks.ledger.events import recorded_listings
from tasks.ledger.lines import Event
from tasks.ledger.verify import check
from tasks.lineage.lock_check import check_lock
from tasks.lineage.outputs import Out, OutputChecker, Problem
from tasks.lineage.versions import malformed
from tasks.project.graph import is_code
from tasks.system.errors import ProjectError
from tasks.system.yaml_files import parse, read_text

WORKERS = 8
TAKE_BACK = "git checkout dvc.lock"
MEND = f"gr2 run, which mends what a killed DVC left; for what else was done to it: {TAKE_BACK}"


@dataclass(frozen=True)
class Verification:
    """`notes`: what is no fault (code that changed since, events from before the chain). `checked`: how much was read."""

    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    checked: dict[str, float]

    def to_dict(self) -> dict[str, object]:
        return {"ok": not self.problems, **asdict(self)}


def verify(root: Path) -> Verification:
    began = time.monotonic()
    ledger = check(root)
    problems = [Problem("record", fault.where, fault.what, fault.remedy) for fault in ledger.faults]
    notes = [f"{ledger.before} events from before there was a chain: covered from its first event on"] if ledger.before else []
    notes += _repair_notes(ledger.events)
    try:
        # Verifying changes nothing: a cut file is reported, and the next run mends it.
        lock = read_lock(root, mend=False)
    except (ProjectError, ValueError, TypeError) as error:  # no YAML, no UTF-8, no mapping of stages
        return Verification((*problems, Problem("lock", "dvc.lock", f"cannot be read: {error}", MEND)), tuple(notes), {})
    broken = {name: why for name, entry in lock.items() if (why := malformed(entry))}
    problems += [Problem("lock", "dvc.lock", f"{name}: {why}", TAKE_BACK) for name, why in broken.items()]
    # The rest is checked all the same: one bad entry must not hide another.
    lock = {name: entry for name, entry in lock.items() if name not in broken}
    problems += [Problem("lock", "dvc.lock", fault.what, fault.remedy) for fault in check_lock(root, lock, ledger.events)]
    reader = OutputChecker(root, _outs(root, lock))
    with ThreadPoolExecutor(WORKERS) as pool:  # hashing lets go of the interpreter
        for output_problems in pool.map(reader.output, reader.outs):
            problems += output_problems
        objects = dict.fromkeys(out.md5 for out in reader.outs if out.cached)
        for object_problems in pool.map(reader.object, objects, objects.values()):
            problems += object_problems
    if not any(problem.kind == "lock" for problem in problems):  # DVC, which is asked, refuses a file with keys that it does not know
        recorded = {md5: listing for event in ledger.events for md5, listing in recorded_listings(event).items()}
        notes += _not_current(root, lock, recorded)
    notes += ledger.notes
    checked = {
        "events": len(ledger.events),
        "stages": len(lock),
        "outputs": len(reader.outs),
        "files": reader.files,
        "cache_objects": reader.objects,
        "seconds": round(time.monotonic() - began, 2),
    }
    return Verification(tuple(dict.fromkeys(problems)), tuple(notes), checked)


def _outs(root: Path, lock: dict[str, Entry]) -> list[Out]:
    """The outputs that dvc.lock records; those that dvc.yaml says DVC does not cache are not looked for in the cache."""
    stages = (parse(read_text(root / "dvc.yaml", "it describes the stages"), "dvc.yaml") or {}).get("stages") or {}
    uncached = {
        (name, path)
        for name, stage in stages.items()
        for key in ("outs", "metrics", "plots")
        for entry in stage.get(key) or []
        if isinstance(entry, dict)
        for path, options in entry.items()
        if isinstance(options, dict) and options.get("cache") is False
    }
    return [
        Out(name, str(out.get("path")), str(out.get("md5") or ""), out.get("size"), (name, out.get("path")) not in uncached)
        for name, entry in lock.items()
        for out in entry.get("outs") or []
    ]


def _not_current(root: Path, lock: dict[str, Entry], recorded: dict[str, Listing]) -> list[str]:
    """Code and data no stage makes that differ from what dvc.lock records: their stages are not current, nothing is forged.

    `recorded`: md5 of a folder -> its files, as the record has them: the changed files of a package are named where it is among these.
    """
    output_paths = {str(out.get("path")) for entry in lock.values() for out in entry.get("outs") or []}
    changed: dict[str, list[str]] = {}
    hashes: dict[str, str] = {}
    for name, entry in lock.items():
        folders = {
            str(dep.get("path")): str(dep.get("md5"))
            for dep in entry.get("deps") or []
            if is_code(str(dep.get("path"))) and str(dep.get("md5", "")).endswith(".dir") and (root / str(dep.get("path"))).is_dir()
        }
        listings = current_listings(root, name, folders) if folders else {}
        for path, md5 in folders.items():
            if path not in listings or listing_hash(listings[path]) == md5:
                continue
            has_listing = md5 in recorded
            for file in [file for file, _ in listing_changes(path, recorded[md5], listings[path])] if has_listing else [path]:
                changed.setdefault(file, []).append(name)
        for dep in entry.get("deps") or []:
            path = str(dep.get("path"))
            is_output = any(path == out or path.startswith(out + "/") for out in output_paths)
            if is_output or not (is_code(path) or (root / path).is_file()):
                continue
            if path not in hashes:
                hashes[path] = file_md5(root / path) if (root / path).is_file() else "folder" if (root / path).is_dir() else ""
            if hashes[path] not in ("folder", dep.get("md5")):
                changed.setdefault(path, []).append(name)
    return [f"not current: {path} is not what dvc.lock records ({', '.join(stages)})" for path, stages in changed.items()]


def _repair_notes(events: list[Event]) -> list[str]:
    """What later runs repaired and wrote down."""
    set_aside, taken_in = "a line that a crash had cut off was set aside", "events whose head a crash had left out were taken in"
    late = "events that no run had anchored were taken in: a killed run's, or put in"
    words = {
        "truncated": set_aside,
        "uncommitted": taken_in,
        "late": late,
        "torn": set_aside,
        "unanchored": taken_in,
    }  # the last two: before 0.2.0
    notes = [event for event in events if event["job"]["name"] == "ledger"]
    notes_by_time = [(event.get("eventTime"), (event["run"]["facets"].get("gr2_note") or {}).get("kind")) for event in notes]
    return [f"the record: {words[kind]} ({str(when)[:19]})" for when, kind in notes_by_time if kind in words]
