"""Whether the lineage record is what was written: every line, the chain between them, and the heads kept outside of it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tasks.ledger.anchor_check import Ends, check_anchors, contradiction
from tasks.ledger.lines import EVENTS, FOLDER, HEAD, Event, Head, canonical, chain_hash, chain_link, is_event, parse_line, read_head

BEGIN_ANEW = f"bring it back from a backup; without one, move {FOLDER} away and begin a new record"


@dataclass(frozen=True)
class RecordFault:
    """`where`: the file, with its line where there is one."""

    where: str
    what: str
    remedy: str = BEGIN_ANEW


@dataclass(frozen=True)
class RecordCheck:
    """The record and what is wrong with it. `before`: events at its beginning from before there was a chain.

    `notes`: who vouches for it.
    """

    events: list[Event]
    before: int
    faults: list[RecordFault]
    notes: list[str]


def check(root: Path) -> RecordCheck:
    text = (root / EVENTS).read_bytes() if (root / EVENTS).exists() else b""
    lines = text.split(b"\n")
    # What stands behind the last newline: nothing, if the last line is whole.
    truncated = lines.pop()
    events, faults, unchained = [], [], 0
    ends: Ends = []
    earlier_bytes, expected, chain_begun = hashlib.sha256(), "", False
    for index, line in enumerate(lines):
        event = parse_line(line)
        link = chain_link(event)
        what = ""
        if event is None:
            what = "is no JSON object"
        elif canonical(event).encode() != line:
            what = "is not as it was written: its bytes were changed"
        elif link is None:
            unchained, what = (unchained, "has no place in the chain: it was put in or changed") if chain_begun else (unchained + 1, "")
        # The first chained line names the hash of all bytes before it, every other one the hash of the line before.
        elif link.get("previous") not in (expected, earlier_bytes.hexdigest()):
            what = "does not follow the line before it: one was changed, removed or put in here"
        elif link.get("index") != index:
            what = f"stands in another place than where it was written ({link.get('index')})"
        elif chain_hash(event) != link.get("hash"):
            what = "was changed: its hash does not fit"
        if what:
            faults.append(RecordFault(f"{EVENTS}:{index + 1}", what))
        if is_event(event):
            events.append(event)
        chain_begun = chain_begun or link is not None
        earlier_bytes.update(line + b"\n")
        expected = str(link.get("hash")) if link else ""
        ends.append((expected, len(line) + 1 + (ends[-1][1] if ends else 0)))
    if truncated:
        faults.append(
            RecordFault(f"{EVENTS}:{len(lines) + 1}", "is cut off: a run was killed, or the disk was full", "the next run repairs it")
        )
    faults += [*_recorded_losses(events), *_head(root, ends, chain_begun)]
    anchor_faults, notes = check_anchors(root, events, ends)
    faults += [RecordFault(*fault) for fault in anchor_faults]
    return RecordCheck(events, unchained, faults, notes)


def _recorded_losses(events: list[Event]) -> list[RecordFault]:
    """Losses that a later run noticed and wrote down."""
    notes = [(event.get("eventTime"), event["run"]["facets"].get("gr2_note")) for event in events if event["job"]["name"] == "ledger"]
    return [
        RecordFault(str(EVENTS), f"{note.get('anchor')} knew an event {note.get('index', -1) + 1} that the record no longer had at {time}")
        for time, note in notes
        if isinstance(note, dict) and note.get("kind") == "lost"
    ]


def _head(root: Path, ends: Ends, chain_begun: bool) -> list[RecordFault]:
    faults = []
    head = read_head(root)
    if (root / HEAD).exists() and head is None:
        faults.append(RecordFault(str(HEAD), "is not as it was written"))
    elif head is None and chain_begun:
        faults.append(RecordFault(str(HEAD), "is missing"))
    elif head is not None:
        faults += _contradictions(str(HEAD), head, ends)
        if not faults and head.index + 1 < len(ends):
            what = f"stops at event {head.index + 1} of {len(ends)}: a run was killed there, or the rest was put in"
            faults.append(RecordFault(str(HEAD), what, "the next run notes it in the record and goes on from there"))
    return faults


def _contradictions(where: str, head: Head, ends: Ends) -> list[RecordFault]:
    return [RecordFault(str(EVENTS), what)] if (what := contradiction(where, head, ends)) else []
