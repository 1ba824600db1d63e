"""The lineage record as a file: one OpenLineage event a line, each chained to the one before it by a hash, only ever appended to.

A line is the event's canonical JSON (sorted keys, ASCII, as openlineage-python writes it) with the run facet gr2_chain: `index` (its line,
from 0), `previous` (the hash of the line before) and `hash` = sha256 of the line without `hash` itself. The first chained line's
`previous` is the sha256 of all bytes before it: of nothing, or of events from before there was a chain. The head (index, hash, bytes
so far) also stands outside of the file: in head.json, and after every run in a git ref, so that a tail cut off is noticed.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tasks.ledger.anchor import git_anchor, is_chain, ref_target, set_git_anchor
from tasks.ledger.anchor_check import count_unanchored
from tasks.ledger.lines import CHAIN, EVENTS, HEAD, TRUNCATED, Event, Head, canonical, chain_hash, head_of, read_events, read_head
from tasks.system.errors import ProjectError
from tasks.system.locks import file_lock
from tasks.system.yaml_files import write_text


def append(root: Path, event: Event) -> None:
    """Adds `event` under a lock that holds between processes, after repairing what a crash left behind (an event of its own notes that)."""
    with _locked_file(root) as file:
        head, notes = _repair(root, file)
        for new_event in (*notes, event):
            head = _write(file, head, new_event)
        write_text(root / HEAD, head.text)


def note(root: Path, kind: str, **facts: object) -> None:
    """Adds a note of the record's own, which no lineage server gets."""
    append(root, _note(kind, **facts))


def anchor(root: Path) -> None:
    """Writes the head into git's ref. When the ref knows events that the file lacks, an event says so first."""
    with _locked_file(root) as file:
        head, notes = _repair(root, file)
        anchored_head = Head.parse(git_anchor(root))
        if anchored_head and not _contains(file, anchored_head):
            notes.append(_note("lost", anchor="the git ref", index=anchored_head.index, hash=anchored_head.hash))
        for note in notes:
            head = _write(file, head, note)
        if notes:
            write_text(root / HEAD, head.text)
        set_git_anchor(root, head.text)


def adopt(root: Path) -> None:
    """To be called when a run begins. Notes the events that no anchor covers: of a run that was killed, or put in by somebody."""
    anchored_head = Head.parse(git_anchor(root))
    if anchored_head and anchored_head != read_head(root) and (late_count := count_unanchored(read_events(root), anchored_head)):
        note(root, "late", first=anchored_head.index + 1, count=late_count)


def prior_anchor(root: Path) -> str:
    """The commit in git's ref, made if there is none yet; empty outside of git, and where git cannot write."""
    if not is_chain(root):
        anchor(root)
    return ref_target(root)


@contextmanager
def _locked_file(root: Path) -> Iterator[BinaryIO]:
    with file_lock(root / EVENTS, wait=True), (root / EVENTS).open("r+b", buffering=0) as file:
        yield file


def _write(file: BinaryIO, head: Head, event: Event) -> Head:
    """Appends whole or not at all, as far as the process lives."""
    from tasks.ledger.facets import custom_facet

    index, link = head.index + 1, custom_facet(CHAIN, {"index": head.index + 1, "previous": head.hash})
    chained = {**event, "run": {**event["run"], "facets": {**event["run"].get("facets", {}), CHAIN: link}}}
    line_hash = link["hash"] = chain_hash(chained)
    line = canonical(chained).encode() + b"\n"
    # Not at the end: what lies behind the head, if anything, has been taken in or set aside by _repaired.
    file.seek(head.bytes)
    try:
        # An unbuffered file may take a part of what it is given, as when the disk is almost full.
        unwritten = memoryview(line)
        while unwritten:
            unwritten = unwritten[file.write(unwritten) :]
        os.fsync(file.fileno())
    except OSError as error:
        # Half a line would be set aside at the next run; taken back now, the record has no trace of it.
        file.truncate(head.bytes)
        raise ProjectError(f"{EVENTS}: an event could not be recorded ({error.strerror}); make room there, then run again") from None
    return Head(index, line_hash, head.bytes + len(line))


def _repair(root: Path, file: BinaryIO) -> tuple[Head, list[Event]]:
    """The head of what the file holds, once its last line is whole; and what is to be noted: a torn line, a head.json that disagrees."""
    notes = []
    size = file.seek(0, os.SEEK_END)
    tail, start = _last_line(file, size)
    if tail and not tail.endswith(b"\n"):
        if head_of(tail, size) is not None:  # all but its newline
            file.write(b"\n")
            tail, size = tail + b"\n", size + 1
        else:
            # Set aside, not thrown away: it is evidence of what the crash, or somebody, did.
            with (root / TRUNCATED).open("ab") as truncated:
                truncated.write(tail + b"\n")
            file.truncate(start)
            notes.append(_note("truncated", bytes=len(tail), sha256=hashlib.sha256(tail).hexdigest(), kept=TRUNCATED.name))
            size = start
            tail, _ = _last_line(file, size)
    head = head_of(tail, size) or _head_of_bytes(file)
    recorded_head = read_head(root)
    if recorded_head is None and head_of(tail, size):
        notes.append(_note("lost", anchor=HEAD.name, index=-1, hash=""))  # it is gone, or no longer what was written
    elif recorded_head and recorded_head != head:
        head_is_behind = _contains(file, recorded_head)  # killed between the event and its head
        notes.append(
            _note("uncommitted", first=recorded_head.index + 1, last=head.index)
            if head_is_behind
            else _note("lost", anchor=HEAD.name, index=recorded_head.index, hash=recorded_head.hash)
        )
    return head, notes


def _head_of_bytes(file: BinaryIO) -> Head:
    file.seek(0)
    text = file.read()
    return Head(text.count(b"\n") - 1, hashlib.sha256(text).hexdigest(), len(text))


def _contains(file: BinaryIO, head: Head) -> bool:
    """Whether the file has that very event at that very place."""
    if head.bytes > file.seek(0, os.SEEK_END):
        return False
    line, _ = _last_line(file, head.bytes)
    return head_of(line, head.bytes) == head


def _last_line(file: BinaryIO, size: int) -> tuple[bytes, int]:
    """The last line, with its newline if it has one, and where it begins."""
    start, tail = size, b""
    while start > 0 and b"\n" not in tail[:-1]:
        step = min(start, 1 << 16)
        start -= step
        file.seek(start)
        tail = file.read(step) + tail
    cut = tail.rfind(b"\n", 0, -1) + 1
    file.seek(size)
    return tail[cut:], start + cut


def _note(kind: str, **facts: object) -> Event:
    from tasks.ledger.facets import note_event

    return note_event({"kind": kind, **facts})
