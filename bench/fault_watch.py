"""What the fault campaign sees from outside: which processes of a trial live, and what every output holds, polled."""

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

MARK = "GR2_FAULT"  # in the environment of every process of a trial, with the trial's name
POLL_S = 0.02
ABSENT = ""

Content = dict[str, str]  # path below an output ("" for a file) -> md5


@dataclass(frozen=True)
class Process:
    pid: int
    words: tuple[str, ...]

    @property
    def role(self) -> str:
        """orchestrator, dvc, stage, server, worker, node or other."""
        line = " ".join(self.words)
        if self.words[1:2] == ("-m",) and self.words[2].startswith("stages."):
            return "stage"
        return next((role for sign, role in SIGNS.items() if sign in line and not self.words[0].endswith("sh")), "other")

    @property
    def stage(self) -> str:
        """The stage that it is or runs; empty for others."""
        return self.words[2].split(".")[1] if self.role == "stage" else self.words[-1] if self.role == "dvc" else ""


SIGNS = {
    "-m dvc --wait-for-lock repro": "dvc",
    "-m flows.cli run": "orchestrator",
    "server/ephemeral_app.py": "server",  # of a run without PREFECT_API_URL
    "prefect.server.api.server:create_app": "server",
    "prefect server start": "server",
    "prefect worker start": "worker",
    "-m prefect.engine": "node",
}


BESIDE = re.compile(r"\.[\w-]{22}\.tmp")  # what DVC writes before it renames


def processes(mark: str) -> list[Process]:
    """The living processes that carry `mark`, zombies aside."""
    variable = f"{MARK}={mark}".encode()
    alive = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            if variable not in Path("/proc", name, "environ").read_bytes().split(b"\0"):
                continue
            words = Path("/proc", name, "cmdline").read_bytes().decode("utf-8", "replace").rstrip("\0").split("\0")
        except OSError:
            continue  # it ended, or is another user's
        if words != [""]:
            alive.append(Process(int(name), tuple(words)))
    return alive


def content(path: Path) -> Content | None:
    """The hashes of all files at `path`; {} where nothing is, None when it changed while it was read."""
    before = _signature(path)
    try:
        if path.is_dir():
            files = {str(file.relative_to(path)): _md5(file) for file in sorted(path.rglob("*")) if file.is_file()}
        else:
            files = {ABSENT: _md5(path)} if path.exists() else {}
    except OSError:
        return None
    return files if _signature(path) == before else None


def dvc_hash(files: Content) -> str:
    """As dvc.lock has it."""
    if ABSENT in files:
        return files[ABSENT]
    listing = json.dumps([{"md5": md5, "relpath": name} for name, md5 in sorted(files.items(), key=lambda item: item[0].split("/"))])
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"


@dataclass
class Watch:
    """Looks at the outputs in its own thread until it is stopped. `good`: output -> the contents it may have.

    A file in a folder may have the content of either version. An incomplete folder is only counted, since DVC restores folders file
    by file, each under a hidden name first.
    """

    root: Path
    good: Mapping[str, list[Content]]
    looks: int = 0
    incomplete: int = 0
    bad: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> "Watch":
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _loop(self) -> None:
        seen: dict[str, object] = {}
        while not self._ended.wait(POLL_S):
            for out in self.good:
                signature = _signature(self.root / out)
                if seen.get(out) != signature:
                    seen[out] = signature
                    self._look(out)
            self.looks += 1

    def _look(self, out: str) -> None:
        files = content(self.root / out)
        if not files or files in self.good[out]:
            return
        known: dict[str, set[str]] = {}
        for version in self.good[out]:
            for name, md5 in version.items():
                known.setdefault(name, set()).add(md5)
        wrong = [name for name, md5 in files.items() if md5 not in known.get(name, set()) and not BESIDE.fullmatch(Path(name).name)]
        if wrong:
            self.bad.setdefault(out, f"{out}{'/' * bool(wrong[0])}{wrong[0]}: neither absent, nor the old, nor the new content")
        else:
            self.incomplete += 1


def newest(paths: list[Path]) -> object:
    """Changes when one of `paths` does."""
    return [_signature(path) for path in paths]


def wait_until(true: Callable[[], bool], seconds: float, every_s: float = 0.05) -> bool:
    deadline = time.monotonic() + seconds
    while not (holds := true()) and time.monotonic() < deadline:
        time.sleep(every_s)
    return holds


def _signature(path: Path) -> object:
    """Changes when what is at `path` does."""
    try:
        status = path.lstat()
        state = (status.st_ino, status.st_size, status.st_mtime_ns)
        return (state, *(_signature(child) for child in sorted(path.iterdir()))) if path.is_dir() else state
    except OSError:
        return None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
