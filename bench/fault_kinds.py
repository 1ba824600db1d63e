"""The faults of the campaign. `strike` does one at a random moment of a run and says what it hit (empty: the run ended first)."""

import os
import random
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fault_writes
from fault_watch import Process, newest, processes, wait_until

CLOCK_SOURCE = Path(__file__).with_name("clock_jump.c")
LONGEST_S = 1200  # until a fault is given up, on a machine that has much else to do
HOURS = (-72.0, -5.0, -0.01, 0.01, 5.0, 72.0)
HARM = ("flipped", "cut short", "empty", "gone")


@dataclass
class Live:
    """A running trial. `typical`: seconds that a "run" takes, and that the stage's processes live, by role. `start` starts another run."""

    root: Path
    project: Any
    stage: str
    mark: str
    rng: random.Random
    typical: dict[str, float]
    start: Callable[[], "subprocess.Popen[bytes]"]
    run: "subprocess.Popen[bytes]"
    also: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    killed: set[int] = field(default_factory=set)
    heal: list[Callable[[], object]] = field(default_factory=list)
    hot: bool = False

    @property
    def over(self) -> bool:
        return self.run.poll() is not None

    def processes_of(self, role: str, any_stage: bool = False) -> list[Process]:
        all_processes = [process for mark in self.project.marks(self.mark) for process in processes(mark)]
        return [process for process in all_processes if process.role == role and (any_stage or process.stage in ("", self.stage))]

    def moment(self, of_s: float | None = None) -> None:
        """Waits for a moment of the run: uniform in time, or (one time in three) just after the run has written one of its records."""
        limit = self.typical["run"] if of_s is None else of_s
        self.hot = self.rng.random() < 1 / 3
        if self.hot:
            watched = [
                self.root / name for name in ("dvc.lock", ".dvc/tmp/rwlock", ".gr2/lineage/events.jsonl", f"data/{self.stage}", "data")
            ]
            for _ in range(self.rng.randint(1, 4 if of_s is None else 2)):
                self._change(watched, limit)
            limit = self.rng.choice((0, 0.005, 0.05, 0.3))
        ends = time.monotonic() + self.rng.random() * limit
        wait_until(lambda: self.over, max(0.0, ends - time.monotonic()))

    def _change(self, watched: list[Path], limit_s: float) -> None:
        before = newest(watched)
        wait_until(lambda: self.over or newest(watched) != before, limit_s, 0.002)

    def within(self, role: str) -> list[Process]:
        """The processes of `role` at a random moment of their life; empty when they or the run ended first."""
        life_s = self.typical.get(role, 1.0)
        wait_until(lambda: self.over or bool(self.processes_of(role)), LONGEST_S, 0.02)
        self.moment(life_s)
        return self.processes_of(role)

    def kill(self, *targets: Process) -> str:
        for process in targets:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
                self.killed.add(process.pid)
        return ", ".join(f"{process.role} {process.stage}".strip() for process in targets)


@dataclass(frozen=True)
class Kind:
    """`before`: what is done to the project before its run. `own_server`: the run starts Prefect's server itself. `env`: of the runs.

    `changed`: the stage has to run, else its outputs have to come back from the cache. `disk`: the project is on a small disk.
    `again`: it can strike a run that restores the stage without running it, too, so it can follow another fault.
    """

    name: str
    strike: Callable[[Live], str]
    where: tuple[str, ...] = ("toy", "smoke")
    before: Callable[[Path, str, random.Random], str] | None = None
    own_server: bool = False
    changed: bool = True
    disk: bool = False
    mounts: bool = False
    env: Callable[[Path], dict[str, str]] = lambda root: {}
    again: bool = False


def kill_role(role: str) -> Callable[[Live], str]:
    return lambda live: live.kill(*live.within(role)[:1])


def kill_run(live: Live) -> str:
    live.moment()
    return "" if live.over else live.kill(Process(live.run.pid, ("", "-m flows.cli run")))


def kill_all(live: Live) -> str:
    live.moment()
    return "" if live.over else live.kill(*processes(live.mark))


def kill_but_stage(live: Live) -> str:
    """The stage survives, and writes where that of the next run will write."""
    if not live.within("stage"):
        return ""
    return live.kill(*(process for process in processes(live.mark) if process.role != "stage"))


def kill_node(live: Live) -> str:
    """All of the node that has the stage, its worker too, as when its power goes."""
    stage_processes = live.within("stage")
    if not stage_processes:
        return ""
    node = _node_of(stage_processes[0])
    hit = live.kill(*(process for process in processes("farm") if node and _node_of(process) == node))
    _revive_soon(live)
    return f"node {node}: {hit}"


def kill_and_revive(role: str) -> Callable[[Live], str]:
    def strike(live: Live) -> str:
        live.moment()
        if live.over:
            return ""
        candidates = live.processes_of(role)
        hit = live.kill(*(live.rng.sample(candidates, 1) if role == "worker" else candidates))
        _revive_soon(live)
        return hit

    return strike


def _revive_soon(live: Live) -> None:
    pause_s = live.rng.uniform(0, 5)
    wait_until(lambda: live.over, pause_s)
    live.project.revive()


def _node_of(process: Process) -> str:
    with suppress(OSError):
        folders = Path(os.readlink(f"/proc/{process.pid}/cwd")).parts
        return next((folder for folder in folders if folder in ("one", "two")), "")
    return ""


def cut_upload(live: Live) -> str:
    store = live.project.store
    store.cut, store.cut_in = "", live.rng.randint(1, 6)
    live.heal.append(lambda: setattr(store, "cut_in", 0))
    wait_until(lambda: live.over or bool(store.cut), LONGEST_S)
    return f"half of {store.cut}" if store.cut else ""


def fill_disk(live: Live) -> str:
    """Leaves at most 64 kB until the run has ended."""
    live.moment()
    if live.over:
        return ""
    filler, left = live.root.parent / "filler", live.rng.choice((0, 4096, 65536))
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    os.truncate(filler, max(0, filler.stat().st_size - left))
    live.heal.append(lambda: filler.unlink(missing_ok=True))
    return f"disk full but for {left} bytes"


def read_only_cache(live: Live) -> str:
    live.moment()
    if live.over:
        return ""
    cache = live.root / ".dvc" / "cache"
    for words in (["--bind", str(cache), str(cache)], ["-o", "remount,ro,bind", str(cache)]):
        subprocess.run(["mount", *words], check=True, capture_output=True)
    live.heal.append(lambda: subprocess.run(["umount", "--lazy", str(cache)], check=True))
    return ".dvc/cache read-only"


def harm_needed(root: Path, stage: str, rng: random.Random) -> str:
    """An object that the outputs of `stage` need to come back."""
    from tasks.dvc.lockfile import locked_hashes, read_lock

    hashes = [entry["hash"] for entry in locked_hashes(read_lock(root)[stage]["outs"]).values()]
    import json

    files = root / ".dvc/cache/files/md5"
    for md5 in [entry for entry in hashes if entry.endswith(".dir")]:
        hashes += [entry["md5"] for entry in json.loads((files / md5[:2] / md5[2:]).read_text())]
    md5 = rng.choice(hashes)
    return _harm(files / md5[:2] / md5[2:], rng)


def harm_any(live: Live) -> str:
    live.moment()
    if live.over:
        return ""
    objects = sorted(path for path in (live.root / ".dvc/cache/files/md5").rglob("*") if path.is_file())
    return _harm(live.rng.choice(objects), live.rng)


def _harm(path: Path, rng: random.Random) -> str:
    """Keeps the file's mode and times, as a bad sector does."""
    how, status = rng.choice(HARM), path.stat()
    text = path.read_bytes()
    path.chmod(0o644)
    if how == "gone":
        path.unlink()
    else:
        place = rng.randrange(len(text)) if text else 0
        flipped = text[:place] + bytes([text[place] ^ 0x20]) + text[place + 1 :] if text else b"x"
        path.write_bytes({"flipped": flipped, "cut short": text[: len(text) // 2], "empty": b""}[how])
        path.chmod(status.st_mode)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return f"{path.parent.name}{path.name} {how}"


def nothing(live: Live) -> str:
    """Measures how long the processes of each role live."""
    seen: dict[str, list[float]] = {}
    while not live.over:
        for role in ("stage", "dvc", "node", "server"):
            if live.processes_of(role):
                seen.setdefault(role, []).append(time.monotonic())
        time.sleep(0.05)
    live.typical = {role: times[-1] - times[0] for role, times in seen.items()}
    return "nothing"


def before_alone(live: Live) -> str:
    """For a fault done before the run."""
    return "before the run"


def clock_env(root: Path) -> dict[str, str]:
    library, jump = root / ".gr2" / "clock.so", root / ".gr2" / "clock"
    if not library.exists():
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(CLOCK_SOURCE), "-ldl"], check=True)
        jump.write_bytes(struct.pack("d", 0.0))
    return {"LD_PRELOAD": str(library), "GR2_CLOCK": str(jump)}


def jump_clock(live: Live) -> str:
    """The wall clock of all processes of the run, and the times of some files: written before or after the jump."""
    live.moment()
    if live.over:
        return ""
    hours = live.rng.choice(HOURS)
    _set_clock(live.root, hours)
    for path in sorted((live.root / "data").rglob("*")):
        if path.is_file() and live.rng.random() < 0.5:
            with suppress(OSError):
                when = path.stat().st_mtime + 3600 * live.rng.choice(HOURS)
                os.utime(path, (when, when))
    if live.rng.random() < 0.5:
        live.heal.append(lambda: _set_clock(live.root, 0.0))  # else the next run begins in the other time
    return f"{hours:+} h"


def _set_clock(root: Path, hours: float) -> None:
    with (root / ".gr2" / "clock").open("r+b") as file:
        file.write(struct.pack("d", 3600 * hours))


def second_run(live: Live) -> str:
    """Another `gr2 run` in the same checkout; in half of the trials one of the two is killed."""
    if live.rng.random() < 0.5:
        time.sleep(live.rng.random())
    else:
        live.moment()
    if live.over:
        return ""
    other = live.start()
    live.also.append(other)
    if live.rng.random() < 0.5:
        return "a second run"
    live.moment()
    victim = live.rng.choice((live.run, other))
    if victim.poll() is None:
        live.kill(Process(victim.pid, ("", "-m flows.cli run")))
        return f"a second run; the {'first' if victim is live.run else 'second'} killed"
    return "a second run"


def killed_in_write(live: Live) -> str:
    """The preloaded library does it, where `before` says."""
    live.heal.append(lambda: fault_writes.forget(live.root))
    pid = fault_writes.struck(live.root, lambda: live.over, LONGEST_S)
    live.killed.add(pid)
    return f"process {pid} killed" if pid else ""


def can_mount() -> bool:
    probe = "mount -t tmpfs tmpfs /mnt"
    return (
        shutil.which("unshare") is not None
        and subprocess.run(["unshare", "--mount", "sh", "-c", probe], capture_output=True).returncode == 0
    )


def series(rng: random.Random, kinds: list[Kind], length: int) -> tuple[Kind, ...]:
    """Faults for the runs after a first one."""
    follow = [kind for kind in kinds if kind.again and not why_not(kind)]
    return tuple(rng.choice(follow) for _ in range(length))


def why_not(kind: Kind) -> str:
    """Why this machine cannot do it; empty if it can."""
    if (kind.disk or kind.mounts) and not can_mount():
        return "needs permission to mount (unshare --mount)"
    if kind.strike in (jump_clock, killed_in_write) and shutil.which("cc") is None:
        return "needs a C compiler (cc)"
    return ""


CONTROL = Kind("none", nothing, ("toy", "nodes", "smoke"))
KINDS = (
    Kind("kill -9 of the stage", kill_role("stage")),
    Kind("kill -9 of dvc", kill_role("dvc"), again=True),
    Kind("kill -9 of gr2 run", kill_run, again=True),
    Kind("kill -9 of Prefect's own server", kill_role("server"), own_server=True),
    Kind("full disk", fill_disk, disk=True, again=True),
    Kind("read-only cache", read_only_cache, mounts=True, again=True),
    Kind("damaged cache object, needed", before_alone, before=harm_needed, changed=False),
    Kind("damaged cache object, any time", harm_any, ("toy",)),
    Kind("kill -9 of all of a run", kill_all, ("toy",)),
    Kind("kill -9 of gr2 run with its own server", kill_run, ("toy",), own_server=True),
    Kind("kill -9 of gr2 run and dvc, the stage lives on", kill_but_stage),
    Kind("clock jump", jump_clock, ("toy",), env=clock_env),
    Kind("two gr2 run on one checkout", second_run, ("toy",)),
    *(
        Kind(f"killed inside a write: {name}", killed_in_write, before=fault_writes.order(name), env=fault_writes.library, again=True)
        for name in fault_writes.PLACES
    ),
    Kind("kill -9 of a node's stage", kill_role("stage"), ("nodes",)),
    Kind("kill -9 of a node's flow run", kill_role("node"), ("nodes",)),
    Kind("kill -9 of a worker", kill_and_revive("worker"), ("nodes",)),
    Kind("kill -9 of a whole node", kill_node, ("nodes",)),
    Kind("kill -9 of gr2 run --placement", kill_run, ("nodes",)),
    Kind("kill -9 of the Prefect server", kill_and_revive("server"), ("nodes",)),
    Kind("upload cut short", cut_upload, ("nodes",)),
)
