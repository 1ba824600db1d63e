"""Faults inside a write: a library before the processes of a run kills the one that writes a file, with so many bytes of it written."""

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

from fault_watch import wait_until

SOURCE = Path(__file__).with_name("cut_write.c")
# What DVC and gr2 write in a run, by a part of the path: in place, or beside and then moved.
PLACES = {
    "dvc.lock": "/dvc.lock",
    "DVC's list of readers and writers": "/.dvc/tmp/rwlock",
    "the lineage record": "/events.jsonl",
    "head.json": "/.head.json.new",
    "the copy of dvc.lock": "/.gr2/.dvc.lock.new",
    "the note of a stage": "/.gr2/unfinished/.",
    "the run cache": "/.dvc/cache/runs/",
    "a cache object": "/.dvc/cache/files/",
}
SIZES = (0, 1, 40, 200, 600, 1500)  # bytes of which one is the limit, each less something


def library(root: Path) -> dict[str, str]:
    """The environment of the runs."""
    built = root / ".gr2" / "cut_write.so"
    if not built.exists():
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(built), str(SOURCE), "-ldl"], check=True)
    return {"LD_PRELOAD": str(built), "GR2_CUT": str(root / ".gr2" / "cut")}


def order(name: str) -> Callable[[Path, str, random.Random], str]:
    def before(root: Path, stage: str, rng: random.Random) -> str:
        size = rng.choice(SIZES)
        limit = rng.randint(size // 2, size)
        forget(root)
        (root / ".gr2" / "cut").write_text(f"{limit} {PLACES[name]}\n")
        return f"{name} after {limit} bytes"

    return before


def struck(root: Path, over: Callable[[], bool], seconds: float) -> int:
    """The process that was killed inside its write; 0 if the run ended first."""
    done = root / ".gr2" / "cut.done"
    wait_until(lambda: over() or (done.exists() and done.read_text().endswith("\n")), seconds)
    return int(done.read_text()) if done.exists() else 0


def forget(root: Path) -> None:
    """The order holds for one run."""
    (root / ".gr2" / "cut").unlink(missing_ok=True)
    (root / ".gr2" / "cut.done").unlink(missing_ok=True)
