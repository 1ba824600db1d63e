"""One trial of the campaign: a run that is struck, what was visible meanwhile, the run after it, and what that left."""

import random
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from fault_kinds import CONTROL, LONGEST_S, Kind, Live
from fault_watch import Watch, content, dvc_hash, processes, wait_until

from tasks.dvc.lockfile import locked_hashes, read_lock
from tasks.lineage.verify import verify
from tasks.project.graph import read_graph
from tasks.run.plan import make_plan

GRACE_S = 300  # a node's flow run still talks to the server when its stage is done, on a busy machine for a while
SPARE_MB = 48  # of a small disk, beyond what the project takes


@dataclass(frozen=True)
class Strike:
    """What a fault `hit` (empty: the run ended first), `at_s` seconds after the start of a run of `run_s`."""

    live: Live
    hit: str
    codes: list[int]
    at_s: float
    run_s: float


class Trial:
    """`typical`: seconds that an undisturbed "run" and its processes take; `url`: of a Prefect server, for runs without one.

    `series`: faults of the runs after the first, one a run; the run after the last fault has to mend what all of them left.
    """

    def __init__(
        self,
        project: Any,
        kind: Kind,
        stage: str,
        number: int,
        rng: random.Random,
        typical: dict[str, float],
        folder: Path,
        url: str,
        series: tuple[Kind, ...] = (),
    ):
        self.project, self.kind, self.stage, self.number, self.rng = project, kind, stage, number, rng
        self.typical, self.folder, self.url, self.series = typical, folder, url, series
        self.root = folder / "project"
        self.mark = f"trial-{number}-{rng.getrandbits(32):x}"
        self.wrong: list[str] = []

    def run(self) -> dict[str, Any]:
        self._clean()
        self.folder.mkdir(parents=True)
        if any(kind.disk for kind in (self.kind, *self.series)):
            size_kb = int(
                subprocess.run(["du", "-sk", str(self.project.base)], capture_output=True, text=True, check=True).stdout.split()[0]
            )
            words = ["-t", "tmpfs", "-o", f"size={size_kb + 1024 * SPARE_MB}k", "tmpfs", str(self.folder)]
            subprocess.run(["mount", *words], check=True)
        self.good = self.project.fresh(self.root, self.stage, self.number, self.kind.changed)
        self._set_env(self.kind)
        with Watch(self.root, self.good) as watch:
            first = self._strike(self.kind)
            if not first.hit:
                self._end_all()
                return {"hit": "", "outcome": "ended first", "run_s": round(first.run_s, 1), "violations": []}
            more = self._more()
            self._set_env(self.kind)
            recovery_s, recovered = self._again()
            if recovered:
                self._third()
        self._nobody_left()
        self.wrong += [f"seen: {what}" for what in watch.bad.values()]
        healed = self._results() if recovered else 0
        went_through = not more and first.codes[0] == 0
        return {
            "hit": first.hit,
            "at_s": round(first.at_s, 2),
            "hot": first.live.hot,
            "codes": first.codes,
            "run_s": round(first.run_s, 1),
            **({"lives_s": {role: round(life, 1) for role, life in first.live.typical.items()}} if self.kind is CONTROL else {}),
            **({"more": [{"kind": kind.name, "hit": strike.hit, "codes": strike.codes} for kind, strike in more]} if self.series else {}),
            "recovery_s": round(recovery_s, 1),
            "looks": watch.looks,
            "incomplete_folders_seen": watch.incomplete,
            "outcome": ("violated" if self.wrong else "went through" if went_through else "recovered")
            + (", cache mended" if healed else ""),
            "violations": self.wrong,
        }

    def _set_env(self, kind: Kind) -> None:
        """Of the runs from now on."""
        self.env = {**self.project.env(self.root, self.mark), **kind.env(self.root)}
        if self.url and not kind.own_server:
            self.env["PREFECT_API_URL"] = self.url

    def _strike(self, kind: Kind) -> Strike:
        """A run with this fault, until it and the fault are over."""
        harmed = kind.before(self.root, self.stage, self.rng) if kind.before else ""
        began = time.monotonic()
        live = Live(self.root, self.project, self.stage, self.mark, self.rng, self.typical, self._start, self._start())
        hit = kind.strike(live)
        at_s = time.monotonic() - began
        codes = self._ended(live)
        run_s = time.monotonic() - began
        for heal in live.heal:
            heal()
        return Strike(live, ": ".join(filter(None, [harmed, hit])) if hit else "", codes, at_s, run_s)

    def _more(self) -> list[tuple[Kind, Strike]]:
        """The faults of the series that struck. A run that ends before its fault has mended all that there was, so it is the last."""
        struck = []
        for kind in self.series:
            self._set_env(kind)
            strike = self._strike(kind)
            if not strike.hit:
                if strike.codes[0]:
                    self.wrong.append(f"the run after fault {len(struck) + 1} ended with {strike.codes[0]}: {self._tail('run.log')}")
                break
            struck.append((kind, strike))
        return struck

    def keep(self, place: Path) -> Path:
        """Copies all of the trial to `place`."""
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.folder, place, symlinks=True)
        return place

    def _start(self, log: str = "run.log", words: tuple[str, ...] = ()) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "flows.cli", *(words or self.project.run_words())]
        with (self.folder / log).open("ab") as file:
            return subprocess.Popen(
                command, cwd=self.root, env=self.env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )

    def _ended(self, live: Live) -> list[int]:
        """The exit codes of the runs; a run that nothing ended is a violation. A killed one is not waited for."""
        codes = []
        for run in (live.run, *live.also):
            try:
                codes.append(run.wait(LONGEST_S))
            except subprocess.TimeoutExpired:
                self.wrong.append(f"the run did not end within {LONGEST_S} s of the fault")
                self._end_all()
                codes.append(run.wait())
            if run.pid not in live.killed and codes[-1] < 0:
                self.wrong.append(f"gr2 run died of signal {-codes[-1]}, which nobody sent")
        if self.kind is CONTROL and codes != [0]:
            self.wrong.append(f"an undisturbed run ended with {codes}: {self._tail('run.log')}")
        return codes

    def _again(self) -> tuple[float, bool]:
        """The run after the fault: one has to be enough."""
        began = time.monotonic()
        again = self._start("again.log")
        try:
            code = again.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            self.wrong.append(f"the run after it did not end within {LONGEST_S} s: something waits for ever")
            self._end_all()
            return time.monotonic() - began, False
        if code:
            self.wrong.append(f"the run after it ended with {code}: {self._tail('again.log')}")
        return time.monotonic() - began, code == 0

    def _third(self) -> None:
        """A run that has nothing to do, in one trial of four; DVC's own verdict in all."""
        if self.rng.random() < 0.25:
            code = self._start("third.log").wait(LONGEST_S)
            # The closing table: one line of names, which begins with `stage`, then a line a stage, up to an empty one.
            table = (self.folder / "third.log").read_text().rpartition("\nstage ")[2].partition("\n\n")[0]
            states = {row.split()[1] for row in table.splitlines()[1:] if len(row.split()) > 1}
            if code or states != {"Cached"}:
                self.wrong.append(f"a third run ended with {code}, {states or 'no table'}, not all Cached: {self._tail('third.log')}")
        plan = make_plan(self.root, read_graph(self.root))
        if late := [f"{stage.name}: {'; '.join(map(str, stage.causes))}" for stage in plan.stages if not stage.current]:
            self.wrong.append(f"not current after it: {late}")

    def _nobody_left(self) -> None:
        """No process of the trial, and on nodes no stage, outlives the runs; nothing half written is left in data/."""

        def left() -> list[str]:
            alive = processes(self.mark)
            alive += [
                other for mark in self.project.marks(self.mark)[1:] for other in processes(mark) if other.role in ("stage", "dvc", "node")
            ]
            return [f"{' '.join(other.words)[:120]} ({_origin(other.pid)})" for other in alive]

        if not wait_until(lambda: not left(), GRACE_S, 0.5):
            self.wrong.append(f"still alive: {left()}")
        self._end_all()
        self.wrong += [f"left over: {path.relative_to(self.root)}" for path in (self.root / "data").glob(".*") if path.name != ".gitignore"]

    def _results(self) -> int:
        """Contents, dvc.lock, the lineage record and the cache. Returns how many damaged cache objects were repaired as --verify says."""
        locked = {path: entry["hash"] for stage in read_lock(self.root).values() for path, entry in locked_hashes(stage["outs"]).items()}
        for out, versions in self.good.items():
            if content(self.root / out) != versions[-1]:
                self.wrong.append(f"{out} is not what an undisturbed run makes")
            if locked.get(out) != dvc_hash(versions[-1]):
                self.wrong.append(f"dvc.lock has {locked.get(out)} for {out}; an undisturbed run has {dvc_hash(versions[-1])}")
        problems = verify(self.root).problems
        damaged = [problem.file for problem in problems if problem.kind == "cache"] if "damaged" in self.kind.name else []
        if damaged:
            for file in damaged:
                (self.root / file).unlink(missing_ok=True)
            subprocess.run(
                [sys.executable, "-m", "dvc", "commit", "--force"], cwd=self.root, env=self.env, capture_output=True, check=False
            )
            problems = verify(self.root).problems
        self.wrong += [f"gr2 lineage --verify: {problem.file}: {problem.what}" for problem in problems]
        return len(damaged)

    def _end_all(self) -> None:
        for process in processes(self.mark):
            subprocess.run(["kill", "-9", str(process.pid)], check=False, capture_output=True)

    def _tail(self, log: str) -> str:
        return " / ".join((self.folder / log).read_text(errors="replace").strip().splitlines()[-4:])[-500:]

    def _clean(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _origin(pid: int) -> str:
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        age_s = time.time() - process.create_time()
        return f"process {pid}, child of {process.ppid()}, {age_s:.0f} s old, {process.status()}, in {process.cwd()}"
    return f"process {pid}, gone by now"
