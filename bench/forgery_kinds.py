"""What a forgery is, and the small tools of a forger: an edit of a file, of a cache object, of an entry in dvc.lock."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from forgery_project import run_cache_records, write

from tasks.dvc.dir_listing import object_path
from tasks.dvc.lockfile import as_dvc_writes, read_lock
from tasks.ledger.lines import EVENTS
from tasks.ledger.log import append
from tests.support import dvc_toy
from tests.support.lineage_toy import md5

DATA, CACHE, PROJECT, CODE = "writes data/", "writes the cache", "writes dvc.lock", "writes code and parameters"
GR2, GIT, ALL = "writes .gr2", "writes .gr2 and .git", "writes it all"
OUT, FOLDER = "data/d/out.txt", "data/d/model"
LOCK = Path("dvc.lock")


@dataclass(frozen=True)
class Forgery:
    """`found`: the kinds of problem of which one names it ("note" for a note alone, "" for nothing); `reason`: why it is no fault."""

    what: str
    who: str
    do: Callable[[Path], object]
    found: str
    reason: str = ""


def edit(name: str | Path, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Changes a file, its times as before."""

    def do(root: Path) -> None:
        place = root / name
        times = place.stat()
        write(place, change(place.read_bytes()))
        os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))

    return do


def flip(place: int) -> Callable[[bytes], bytes]:
    return lambda text: text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :]


def swap(old: str, new: str) -> Callable[[bytes], bytes]:
    def change(text: bytes) -> bytes:
        assert old.encode() in text, old
        return text.replace(old.encode(), new.encode(), 1)

    return change


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[bytes], bytes]:
    return lambda text: b"".join(change(text.splitlines(keepends=True)))


def cached(path: str, change: Callable[[bytes], bytes] | None) -> Callable[[Path], object]:
    """Of the object of an output; removed where `change` is None."""

    def do(root: Path) -> None:
        place = object_path(root, md5(root, path))
        if change is None:
            place.unlink()
        else:
            write(place, change(place.read_bytes()))

    return do


def member(change: Callable[[bytes], bytes] | None) -> Callable[[Path], object]:
    """Of the object of a file in an output folder."""

    def do(root: Path) -> None:
        listing = json.loads(object_path(root, md5(root, FOLDER)).read_text())
        place = object_path(root, listing[0]["md5"])
        if change is None:
            place.unlink()
        else:
            write(place, change(place.read_bytes()))

    return do


def entry(change: Callable[[dict[str, dict[str, object]]], object]) -> Callable[[Path], object]:
    """Changes the entries of dvc.lock and writes them as DVC does."""

    def do(root: Path) -> None:
        stages = read_lock(root)
        change(stages)
        write(root / LOCK, as_dvc_writes(stages).encode())

    return do


def of_d(change: Callable[[dict[str, list[dict[str, object]]]], object]) -> Callable[[Path], object]:
    return entry(lambda stages: change(stages["d"]))  # type: ignore[arg-type]


def git(*words: str) -> Callable[[Path], object]:
    return lambda root: dvc_toy.call(root, "git", *words)


def both(*steps: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda root: [step(root) for step in steps]


def remove(name: str | Path) -> Callable[[Path], object]:
    def do(root: Path) -> None:
        place = root / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()

    return do


def rename(old: str, new: str) -> Callable[[Path], object]:
    return lambda root: (root / old).rename(root / new)


def append_event(root: Path) -> None:
    """The newest event of d again: well-formed, chained, with its head."""
    events = [json.loads(line) for line in (root / EVENTS).read_text().splitlines()]
    event = next(event for event in reversed(events) if event["job"]["name"] == "d" and event["eventType"] == "COMPLETE")
    del event["run"]["facets"]["gr2_chain"]
    append(root, event)


def swap_words(root: Path) -> None:
    """Another host in the first event, the chain behind it as it was."""
    edit(EVENTS, swap('"host": "', '"host": "x'))(root)


def edit_run_cache(root: Path) -> None:
    for record in run_cache_records(root):
        record.write_text(record.read_text().replace(md5(root, OUT), "0" * 32))
