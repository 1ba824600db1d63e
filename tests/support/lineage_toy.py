"""The toy project run on record, without Prefect: every stage by DVC, with the events that the flow writes around it."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from tasks.dvc.dir_listing import cache_folder
from tasks.ledger.events import StageRun, close_run
from tasks.ledger.lines import CHAIN, Event, Head, canonical, chain_hash
from tasks.ledger.run_context import RunContext, git_revision
from tasks.project.graph import read_graph
from tests.support import dvc_toy

FLOW_RUN = "0190a3f6-1111-7222-8333-444455556666"


def run(root: Path, names: Iterable[str] = "abcd") -> None:
    context = RunContext(git_revision(root), FLOW_RUN)
    graph = read_graph(root)
    records = [StageRun(root, graph[name], context) for name in names]
    for record in records:
        record.start()
    dvc_toy.dvc(root, "repro", *names)
    for record in records:
        record.complete()
    close_run(root, context, "Completed", list(names))


_made: list[Path] = []


def copy(factory: pytest.TempPathFactory, name: str) -> Path:
    """A copy of one project that all modules share: DVC takes its seconds."""
    if not _made:
        _made.append(make(factory.mktemp("lineage-toy") / "toy"))
    return Path(shutil.copytree(_made[0], factory.mktemp(name) / "toy", symlinks=True))


def make(folder: Path) -> Path:
    """Two commits: v1, and one in which b has another parameter and c another line of code. Two runs on record."""
    root = dvc_toy.make(folder)
    (root / "requirements.lock").write_text("polars==2.1\n")
    dvc_toy.commit(root, "lock")
    run(root)
    dvc_toy.commit(root, "first")
    dvc_toy.call(root, "git", "tag", "v1")
    dvc_toy.set_param(root, "b:\n  x: 1", "b:\n  x: 5")
    (root / "stages/c/words.py").write_text('WORDS = "C"\n')
    dvc_toy.commit(root, "edits")
    run(root, "bcd")
    dvc_toy.commit(root, "second")
    return root


def md5(root: Path, path: str) -> str:
    """Of an output, as dvc.lock has it."""
    from tasks.dvc.lockfile import read_lock

    return next(out["md5"] for entry in read_lock(root).values() for out in entry["outs"] if out["path"] == path)


def cached(root: Path, digest: str) -> Path:
    return cache_folder(root) / digest[:2] / digest[2:]


def rechained(events: list[Event]) -> tuple[bytes, Head]:
    """The lines of a record of these events and its head, every hash of the chain made anew: what a forger of the whole record writes."""
    previous, text = events[0]["run"]["facets"][CHAIN]["previous"], b""
    for event in events:
        link = event["run"]["facets"][CHAIN]
        link["previous"] = previous
        previous = link["hash"] = chain_hash(event)
        text += canonical(event).encode() + b"\n"
    return text, Head(len(events) - 1, previous, len(text))
