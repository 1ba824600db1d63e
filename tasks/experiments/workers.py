"""DVC's queue workers, which carry out queued experiments side by side. They live no longer than the process that started them."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tasks.dvc.revisions import references
from tasks.experiments.queue import DVC, RUNS, Experiment, environment, failure, record, run_dvc
from tasks.system.processes import signal_group

STEP = re.compile(r"Running stage '(?P<ran>.+)':|Stage '(?P<cached>.+)' is cached - skipping run.*")
RUNNING, FAILED, FINISHED = 2, 4, 6  # dvc.repo.experiments.executor.base.TaskStatus
GRACE_S = 15.0


class Workers:
    """Carries out `experiments` with `jobs` workers; `tell` hears of an experiment whose state or stage changed."""

    def __init__(self, root: Path, experiments: Sequence[Experiment], tell: Callable[[Experiment, str], None]):
        self.root, self.experiments, self.tell = root, list(experiments), tell
        self.workers: list[subprocess.Popen[bytes]] = []

    def run(self, jobs: int, stopped: Callable[[], bool] = lambda: False) -> None:
        """Ends when all are done; or when `stopped`, those that are not done taken out of the queue again."""
        try:
            self.workers = [self._worker(number) for number in range(min(jobs, len(self.experiments)))]
            while not all(own.done for own in self.experiments):
                alive = any(worker.poll() is None for worker in self.workers)
                for own in self.experiments:
                    self._look(own)
                if stopped():
                    self._withdraw()
                elif not alive:
                    self._given_up()
                time.sleep(0.3)
        finally:
            self._end_workers()

    def _worker(self, number: int) -> subprocess.Popen[bytes]:
        log = self.root / ".gr2" / "logs" / f"experiments-{number + 1}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        node = f"gr2-{os.getpid()}-{number + 1}@localhost"
        command = [*DVC, "exp", "queue-worker", node, *(["--clean"] if number == 0 else [])]
        with log.open("wb") as file:
            return subprocess.Popen(
                command,
                cwd=self.root,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,  # Ctrl-C reaches this process alone, which then ends them in good order
            )

    def _look(self, own: Experiment) -> None:
        info = record(self.root, own.rev, "run")
        if own.done or info is None:
            return
        if own.state == "Queued" and info["status"] >= RUNNING:
            own.state = "Running"
            self.tell(own, "running")
        self._read(own)
        if info["status"] == FINISHED and info["result_ref"]:
            own.state = "Completed"
            ran = f"ran {', '.join(own.ran)}" if own.ran else "nothing ran"
            self.tell(own, f"Completed: {ran}" + (f"; from the cache: {', '.join(own.restored)}" if own.restored else ""))
        elif info["status"] >= FAILED:  # DVC calls one that was killed finished, too
            own.state, own.message = "Failed", failure(own.lines)
            self.tell(own, f"Failed: {own.message}")

    def _read(self, own: Experiment) -> None:
        file = self.root / RUNS / own.rev / f"{own.rev}.out"
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return
        for line in lines[len(own.lines) :]:
            if step := STEP.fullmatch(line):
                (own.ran if step["ran"] else own.restored).append(step["ran"] or step["cached"])
                self.tell(own, f"{step['ran']} runs" if step["ran"] else f"{step['cached']} comes from the cache")
        own.lines = lines

    def _given_up(self) -> None:
        """The workers are gone: what is not done by now never will be."""
        for own in self.experiments:
            self._look(own)
            if not own.done:
                own.state, own.message = "Failed", "its worker ended; see .gr2/logs/experiments-1.log"
                self.tell(own, f"Failed: {own.message}")

    def _withdraw(self) -> None:
        """Ends the experiments at work and takes all that are not done out of the queue."""
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)  # it takes no more
        if waiting := [own.rev for own in self.experiments if own.state == "Queued"]:
            run_dvc(self.root, "queue", "remove", *waiting)
        self._end_workers(at_once=True)
        filed = {ref.split("/")[-1] for _, ref in references(self.root, "refs/exps")}
        for own in self.experiments:
            info = record(self.root, own.rev, "run")
            if own.state == "Completed" or own.name in filed:
                own.state = "Completed"
                continue
            if info is not None:
                shutil.rmtree(info["root_dir"], ignore_errors=True)
            if own.state != "Failed" and own.rev not in waiting and run_dvc(self.root, "queue", "remove", own.rev).returncode:
                run_dvc(self.root, "queue", "kill", "--force", own.rev)  # DVC believes it to be at work
                run_dvc(self.root, "queue", "remove", own.rev)
            own.state = "Failed" if own.state == "Failed" else "Stopped"

    def _end_workers(self, at_once: bool = False) -> None:
        """SIGTERM has a worker take no more and end what it is at; `at_once` ends the experiment, too. None is left afterwards."""
        for worker in self.workers:
            if at_once:
                signal_group(worker, signal.SIGTERM)
            elif worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        for worker in self.workers:
            with suppress(subprocess.TimeoutExpired):
                worker.wait(max(0.1, deadline - time.monotonic()))
            signal_group(worker, signal.SIGKILL)
            worker.wait()
