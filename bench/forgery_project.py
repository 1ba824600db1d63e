"""The project that bench/forgeries.py forges: the toy diamond on record, its ref on a remote; and the larger tools of a forger."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dvc.utils.serialize import dumps_yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tasks.dvc.dir_listing import file_md5, object_path  # noqa: E402 (after sys.path)
from tasks.dvc.internals import run_record_name  # noqa: E402 (after sys.path)
from tasks.dvc.lockfile import LOCK, as_dvc_writes, read_lock  # noqa: E402 (after sys.path)
from tasks.ledger.anchor import REF, promotion_trailer  # noqa: E402 (after sys.path)
from tasks.ledger.lines import CHAIN, EVENTS, HEAD, Event  # noqa: E402 (after sys.path)
from tasks.ledger.log import anchor, append, prior_anchor  # noqa: E402 (after sys.path)
from tasks.ledger.run_context import run_context  # noqa: E402 (after sys.path)
from tasks.project.graph import read_graph  # noqa: E402 (after sys.path)
from tasks.run import interrupted  # noqa: E402 (after sys.path)
from tests.support import dvc_toy, lineage_toy  # noqa: E402 (after sys.path)

OUT = "data/d/out.txt"


def make(folder: Path) -> Path:
    """Two committed runs, the second promoted, their ref pushed; then a run of d that is on record, its dvc.lock not committed."""
    root = lineage_toy.make(folder / "toy")
    for name, value in (("user.name", "t"), ("user.email", "t@example.org")):
        dvc_toy.call(root, "git", "config", name, value)
    dvc_toy.call(root, "git", "tag", "-a", "-m", "The first", "-m", promotion_trailer(root), "promoted/one")
    dvc_toy.set_param(root, "d:\n  x: 1", "d:\n  x: 9")
    lineage_toy.run(root, "d")
    dvc_toy.call(folder, "git", "init", "-q", "--bare", "remote")
    dvc_toy.call(root, "git", "remote", "add", "origin", "../remote")
    dvc_toy.call(root, "git", "push", "-q", "origin", REF)
    return folder


def write(place: Path, content: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        place.chmod(0o644)  # DVC's objects are read-only
    place.write_bytes(content)


def forge_output(root: Path) -> None:
    """Another content of an output, in the workspace, in dvc.lock and in the cache."""
    old = lineage_toy.md5(root, OUT)
    text = (root / OUT).read_bytes().replace(b"d9", b"d8")
    write(root / OUT, text)
    new = file_md5(root / OUT)
    write(object_path(root, new), text)
    (root / LOCK).write_text((root / LOCK).read_text().replace(old, new))


def forge_run_record(root: Path) -> None:
    """What dvc.lock says of d, in DVC's run cache."""
    entry = read_lock(root)["d"]
    write(root / ".dvc/cache/runs" / run_record_name(entry), dumps_yaml(entry).encode())


def note_open(what: str) -> Callable[[Path], object]:
    """A run that DVC was asked for d in: "begun" and then killed, "settled" by the next, or only a note that says so ("note alone")."""

    def do(root: Path) -> None:
        if what == "note alone":
            write(root / interrupted.NOTES / "d", json.dumps({"entry": "0" * 64}).encode())
        elif what.startswith("begun"):
            interrupted.journal_start(root, "d")
        if what != "begun":
            interrupted.record_interrupted(root, read_graph(root), run_context(root))
            anchor(root)

    return do


def reorder_lock(root: Path) -> None:
    (root / LOCK).write_text(as_dvc_writes(dict(reversed(read_lock(root).items()))))


def run_cache_records(root: Path) -> list[Path]:
    return [path for path in (root / ".dvc/cache/runs").rglob("*") if path.is_file()]


def rewrite_record(root: Path, keep: int | None = None) -> None:
    """Another parameter in the newest event of d (or the events up to `keep` alone), the chain behind it and head.json made anew."""
    events = [json.loads(line) for line in (root / EVENTS).read_text().splitlines()][:keep]
    if keep is None:
        made = [event for event in events if event["job"]["name"] == "d" and event["eventType"] == "COMPLETE"]
        made[-1]["run"]["facets"]["gr2_params"]["values"]["params.yaml"]["d"]["x"] = 8
    text, head = lineage_toy.rechained(events)
    write(root / EVENTS, text)
    write(root / HEAD, head.text.encode())


def recommit_record(root: Path, chain: bool = True) -> None:
    """A ref for the record as it now is: of one commit, or with `chain` of one for each run, as the events then name them."""
    dvc_toy.call(root, "git", "update-ref", "-d", REF)
    if not chain:
        anchor(root)
        return
    events: list[Event] = [json.loads(line) for line in (root / EVENTS).read_text().splitlines()]
    for name in (EVENTS, HEAD):
        (root / name).unlink()
    for event in events:
        facets: dict[str, Any] = event["run"]["facets"]
        facets.pop(CHAIN, None)
        if "gr2_anchor" in facets:
            facets["gr2_anchor"]["prior"] = prior_anchor(root)
        append(root, event)
        if "gr2_anchor" in facets:
            anchor(root)


def without_remote(root: Path) -> None:
    dvc_toy.call(root, "git", "remote", "remove", "origin")
