"""Stages whose run was killed: DVC goes on after a kill -9 of `gr2 run`, and what it then writes into dvc.lock nobody records.

So a stage is noted just before DVC is asked for it, with the hash of its entry in dvc.lock: in a file, and in the lineage record, which no
edit of that file can make up. A later run records what became of it, if the entry has changed since and the outputs are those it names.
Anything else that dvc.lock says is not recorded: `gr2 lineage --verify` names it.
"""

import json
from pathlib import Path

from tasks.dvc.dir_listing import file_md5, files_under, listing_hash, read_json
from tasks.dvc.lock_copy import NOTES, keep, mend, noted_stages
from tasks.dvc.lockfile import Entry, locked_hashes, read_lock
from tasks.dvc.repo import dvc_lock
from tasks.ledger.events import StageRun, entry_hash, read_events, recorded_entry
from tasks.ledger.lines import Event
from tasks.ledger.log import note
from tasks.ledger.run_context import RunContext
from tasks.project.graph import Graph
from tasks.run.origin import KILLED
from tasks.system.locks import dvc_process
from tasks.system.yaml_files import write_text

BEGINS, ENDED = "begins", "ended"


def journal_start(root: Path, name: str) -> None:
    """To be called just before DVC is asked for the stage `name`. dvc.lock is copied, lest DVC be killed while it writes it.

    The note of a killed run stays as it is: its DVC may still be at work, and its entry is not recorded yet.
    """
    # Under DVC's lock, so that no other DVC writes dvc.lock between the copy and the hash.
    with dvc_lock(root):
        mend(root)
        keep(root)
        if (root / NOTES / name).exists():
            return
        before = _hash(read_lock(root).get(name))
        (root / NOTES).mkdir(parents=True, exist_ok=True)
        write_text(root / NOTES / name, json.dumps({"entry": before}) + "\n")
    note(root, BEGINS, stage=name, entry=before)


def journal_end(root: Path, name: str) -> None:
    """What DVC made of the stage is recorded by an event."""
    (root / NOTES / name).unlink(missing_ok=True)


def record_interrupted(root: Path, graph: Graph, context: RunContext) -> list[str]:
    """To be called when no stage of this run is at work any more. Records what killed or failed calls of DVC brought to an end all the
    same; returns these stages. The notes go, unless a DVC process of a killed run still works here."""
    names = noted_stages(root)
    # A DVC that is still at work will change dvc.lock once more: the next run looks again.
    if not names or dvc_process(root) is not None:
        return []
    lock, events = read_lock(root), read_events(root)
    recorded_hashes = {recorded_entry(event) for event in events}
    recorded_stages = []
    for name in names:
        entry = lock.get(name)
        before = read_json(root / NOTES / name).get("entry")
        # An entry that an event has already is another run's; one equal to `before` is what stood there when DVC was asked.
        ran = entry is not None and name in graph.stages and entry_hash(entry) not in {before, *recorded_hashes}
        if ran and entry and _began(events, name, before) and _outputs_match(root, entry):
            StageRun(root, graph[name], context).restored(KILLED)
            recorded_stages.append(name)
        if name not in recorded_stages:
            note(root, ENDED, stage=name)
        journal_end(root, name)
    return recorded_stages


def _began(events: list[Event], name: str, before: str) -> bool:
    """Whether the last that the record has of the stage is that DVC was asked for it when its entry was `before`."""
    for event in reversed(events):
        facts = event["run"]["facets"].get("gr2_note") if event["job"]["name"] == "ledger" else None
        if facts and facts.get("stage") == name and facts.get("kind") in (BEGINS, ENDED):
            return bool(facts["kind"] == BEGINS and facts.get("entry") == before)
        if event["job"]["name"] == name and event.get("eventType") == "COMPLETE":
            return False
    return False


def _outputs_match(root: Path, entry: Entry) -> bool:
    """Whether each output on disk has the hash that the entry names. All is read: DVC takes a file's time and size for its content."""
    return all(_md5(root / path) == content["hash"] for path, content in locked_hashes(entry.get("outs")).items())


def _md5(path: Path) -> str:
    if path.is_dir():
        return listing_hash({name: file_md5(path / name) for name in files_under(path)})
    return file_md5(path) if path.is_file() else ""


def _hash(entry: Entry | None) -> str:
    """Empty for a stage that never ran."""
    return entry_hash(entry) if entry else ""
