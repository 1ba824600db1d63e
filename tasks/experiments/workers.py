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
from tasks.system.lifeline import Lifeline
from tasks.system.processes import signal_group

STEP = re.compile(r"Running stage '(?P<ran>.+)':|Stage '(?P<cached>.+)' is cached - skipping run.*")
RUNNING, FAILED, FINISHED = 2, 4, 6  # dvc.repo.experiments.executor.base.TaskStatus
GRACE_S = 15.0


class Workers:
    """Carries out `experiments` with `jobs` workers; `on_change` hears of an experiment whose state or stage changed."""

    def __init__(self, root: Path, experiments: Sequence[Experiment], on_change: Callable[[Experiment, str], None]):
        self.root, self.experiments, self.on_change = root, list(experiments), on_change
        self.workers: list[subprocess.Popen[bytes]] = []
        self._lifelines: list[Lifeline] = []

    def run(self, jobs: int, stopped: Callable[[], bool] = lambda: False) -> None:
        """Ends when all are done; or when `stopped`, those that are not done taken out of the queue again."""
        try:
            self.workers = [self._worker(number) for number in range(min(jobs, len(self.experiments)))]
            # Alive is asked before looking: a worker may end an experiment and itself between the two.
            while not all(experiment.done for experiment in self.experiments):
                alive = any(worker.poll() is None for worker in self.workers)
                for experiment in self.experiments:
                    self._refresh(experiment)
                if stopped():
                    self._withdraw()
                elif not alive:
                    self._fail_unfinished()
                time.sleep(0.3)
        finally:
            self._end_workers()

    def _worker(self, number: int) -> subprocess.Popen[bytes]:
        log = self.root / ".gr2" / "logs" / f"experiments-{number + 1}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        node = f"gr2-{os.getpid()}-{number + 1}@localhost"
        # As DVC does: one of the workers tidies up the queue's broker when it shuts down.
        command = [*DVC, "exp", "queue-worker", node, *(["--clean"] if number == 0 else [])]
        with log.open("wb") as file:
            worker = subprocess.Popen(
                command,
                cwd=self.root,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,  # Ctrl-C reaches this process alone, which then ends them in good order
            )
        # After a kill -9 of this process they would go on with what is queued.
        self._lifelines.append(Lifeline(f"kill -15 -{worker.pid}; sleep {GRACE_S:.0f}; kill -9 -{worker.pid}"))
        return worker

    def _refresh(self, experiment: Experiment) -> None:
        info = record(self.root, experiment.rev, "run")
        if experiment.done or info is None:
            return
        if experiment.state == "Queued" and info["status"] >= RUNNING:
            experiment.state = "Running"
            self.on_change(experiment, "running")
        self._read(experiment)
        if info["status"] == FINISHED and info["result_ref"]:
            experiment.state = "Completed"
            ran = f"ran {', '.join(experiment.ran)}" if experiment.ran else "nothing ran"
            self.on_change(
                experiment, f"Completed: {ran}" + (f"; from the cache: {', '.join(experiment.restored)}" if experiment.restored else "")
            )
        elif info["status"] >= FAILED:  # DVC calls one that was killed finished, too
            experiment.state, experiment.message = "Failed", failure(experiment.lines)
            self.on_change(experiment, f"Failed: {experiment.message}")

    def _read(self, experiment: Experiment) -> None:
        file = self.root / RUNS / experiment.rev / f"{experiment.rev}.out"
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return
        for line in lines[len(experiment.lines) :]:
            if step := STEP.fullmatch(line):
                (experiment.ran if step["ran"] else experiment.restored).append(step["ran"] or step["cached"])
                self.on_change(experiment, f"{step['ran']} runs" if step["ran"] else f"{step['cached']} comes from the cache")
        experiment.lines = lines

    def _fail_unfinished(self) -> None:
        """The workers are gone: what is not done by now never will be."""
        for experiment in self.experiments:
            self._refresh(experiment)
            if not experiment.done:
                experiment.state, experiment.message = "Failed", "its worker ended; see .gr2/logs/experiments-1.log"
                self.on_change(experiment, f"Failed: {experiment.message}")

    def _withdraw(self) -> None:
        """Ends the experiments at work and takes all that are not done out of the queue."""
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)  # it takes no more
        if waiting := [experiment.rev for experiment in self.experiments if experiment.state == "Queued"]:
            run_dvc(self.root, "queue", "remove", *waiting)
        self._end_workers(at_once=True)
        saved_names = {ref.split("/")[-1] for _, ref in references(self.root, "refs/exps")}
        for experiment in self.experiments:
            info = record(self.root, experiment.rev, "run")
            if experiment.state == "Completed" or experiment.name in saved_names:
                experiment.state = "Completed"
                continue
            if info is not None:
                shutil.rmtree(info["root_dir"], ignore_errors=True)
            if (
                experiment.state != "Failed"
                and experiment.rev not in waiting
                and run_dvc(self.root, "queue", "remove", experiment.rev).returncode
            ):
                run_dvc(self.root, "queue", "kill", "--force", experiment.rev)  # DVC believes it to be at work
                run_dvc(self.root, "queue", "remove", experiment.rev)
            experiment.state = "Failed" if experiment.state == "Failed" else "Stopped"

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
        for lifeline in self._lifelines:
            lifeline.cancel()
        self._lifelines = []
