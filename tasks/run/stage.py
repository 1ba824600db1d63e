"""Runs one stage through `dvc repro -s`, so that DVC alone decides, records and caches, and dvc.lock is what plain DVC writes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tasks.dvc.cache import drop_damaged
from tasks.dvc.lockfile import read_lock
from tasks.dvc.log_parser import Callbacks, DvcOutput
from tasks.dvc.repo import state_folder
from tasks.project.graph import Stage
from tasks.system.disk_watchdog import end_on_full_disk
from tasks.system.errors import Interrupted, StageFailed
from tasks.system.memory import peak_memory
from tasks.system.processes import is_dvc, kill_and_wait, marked_processes, signal_group
from tasks.system.progress import VARIABLE

DVC = [sys.executable, "-m", "dvc", "--wait-for-lock"]
BUSY = "is busy, it is being blocked by"  # another DVC process works on the same files; DVC gives up at once
UNLOCKED = "Unable to acquire lock"
GRACE_S = 5.0
MARK = "GR2_STAGE"  # in the environment of all that works at a stage: the project's folder and the stage


@dataclass(frozen=True)
class Finished:
    """How DVC dealt with it: the stage ran, or its outputs were restored from the cache; neither means it was current."""

    stage: str
    ran: bool
    restored: bool
    seconds: float
    peak_memory_mb: int = 0  # of the stage's processes together; 0: nothing ran


@dataclass
class Runner:
    """Runs stages of the project at `root`; `stop` ends all that are at work. Safe to share between threads."""

    root: Path
    callbacks: Callbacks = field(default_factory=Callbacks)
    env: dict[str, str] | None = None  # of the stages; None = that of this process

    def __post_init__(self) -> None:
        self._children: set[subprocess.Popen[bytes]] = set()
        self._guard = threading.RLock()  # a signal handler may call stop() in a thread that holds it
        self._stopped = threading.Event()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def run(self, stage: Stage, force: bool = False, shown: Mapping[str, str] | None = None, checked: bool = False) -> Finished:
        """Runs `stage` unless DVC finds it current, or `force`. StageFailed with the stage's own message, earlier outputs back in place.

        `shown`: further environment of the stage, as the GPUs it may see. `checked`: its objects in the cache were just hashed.
        """
        began = time.monotonic()
        wait_s = 1.0
        self._end_orphans(stage)
        while True:
            if self.stopped:
                raise Interrupted(stage.name, "stopped before it began")
            # DVC trusts its cache: a damaged object would be restored as this stage's output.
            for path in () if checked else drop_damaged(self.root, stage):
                self.callbacks.note(stage.name, f"{path}: damaged in DVC's cache, so removed")
            self.callbacks.begins(stage.name)
            code, output = self._repro(stage, force, shown or {})
            if code == 0:
                return Finished(stage.name, output.ran, output.restored, time.monotonic() - began, output.peak_memory_mb)
            # Only DVC's own "busy" is waited for. Once the stage itself has run, its failure is final here.
            if self.stopped or output.ran or not (BUSY in output.errors or UNLOCKED in output.errors):
                break
            self.callbacks.note(stage.name, f"waiting: another DVC process holds its files; trying again in {wait_s:.0f} s")
            self._stopped.wait(wait_s)
            wait_s = min(2 * wait_s, 15.0)
        self._restore(stage)
        if self.stopped:
            raise Interrupted(stage.name, "stopped; its earlier outputs are back in place")
        raise StageFailed(stage.name, output.message(code), log_path(stage.name) if output.ran else None)

    def stop(self) -> None:
        """Ends every stage at work (SIGTERM to its process group, SIGKILL after a grace) and refuses new ones."""
        self._stopped.set()
        with self._guard:
            children = list(self._children)
        for child in children:
            signal_group(child, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        while any(_group_alive(child) for child in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        for child in children:
            signal_group(child, signal.SIGKILL)

    def _repro(self, stage: Stage, force: bool, shown: Mapping[str, str]) -> tuple[int, DvcOutput]:
        env = stage_environment({**(os.environ if self.env is None else self.env), **shown, MARK: self._mark(stage), VARIABLE: "lines"})
        command = [*DVC, "repro", "--single-item", *(["--force"] if force else []), stage.name]
        log = self.root / log_path(stage.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as file:
            output = DvcOutput(stage.name, file, self.callbacks)
            # A session of its own: Ctrl-C reaches this process alone, which then ends the stage in good order.
            with self._guard:
                if self.stopped:
                    raise Interrupted(stage.name, "stopped before it began")
                child = subprocess.Popen(
                    command,
                    cwd=self.root,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
                self._children.add(child)
            try:
                with end_on_full_disk(child, (self.root, state_folder())) as disk, peak_memory(child) as peak:
                    output.follow(child)
                    code = child.wait()
            finally:
                with self._guard:
                    self._children.discard(child)
        output.full, output.peak_memory_mb = disk.full, peak.megabytes if output.ran else 0
        return code, output

    def _end_orphans(self, stage: Stage) -> None:
        """Ends `stage` of a run whose DVC was killed: nobody would record what it makes, and it writes where this run will.
        A DVC that is alive is left: it ends in good order, and this one waits for its lock."""
        orphans = marked_processes(MARK, self._mark(stage))
        if orphans and not any(is_dvc(process) for process in orphans):
            self.callbacks.note(stage.name, "a killed run has left it at work; ended")
            kill_and_wait(orphans)

    def _mark(self, stage: Stage) -> str:
        return f"{self.root.resolve()}:{stage.name}"

    def _restore(self, stage: Stage) -> None:
        """Brings back what dvc.lock records of the stage: DVC deletes outs before a run."""
        if stage.name in read_lock(self.root):
            drop_damaged(self.root, stage)
            command = [*DVC, "checkout", "--quiet", "--force", "--allow-missing", stage.name]
            no_stream = subprocess.DEVNULL
            child = subprocess.Popen(command, cwd=self.root, stdin=no_stream, stdout=no_stream, stderr=no_stream, start_new_session=True)
            with end_on_full_disk(child, (self.root, state_folder())):
                child.wait()


def log_path(stage: str) -> Path:
    """From the project's root: all that the last run of `stage` here printed."""
    return Path(".gr2") / "logs" / f"{stage}.log"


def stage_environment(env: Mapping[str, str]) -> dict[str, str]:
    """`env` with this interpreter's folder first in PATH: the `python` of a stage's cmd is then this one, venv activated or not."""
    bin_folder, path = str(Path(sys.executable).parent), env.get("PATH", os.defpath)
    first = path if path.split(os.pathsep)[0] == bin_folder else f"{bin_folder}{os.pathsep}{path}"
    return {**env, "PATH": first, "PYTHONUNBUFFERED": "1"}


def _group_alive(leader: subprocess.Popen[bytes]) -> bool:
    """Whether any process of the group is left: DVC goes at the first SIGTERM, the stage below it may still be tidying up."""
    leader.poll()
    try:
        os.killpg(leader.pid, 0)
    except ProcessLookupError:
        return False
    return True
