"""The pipeline as a Prefect flow: one task a stage, in the order of dvc.yaml, independent ones side by side.

DVC decides what is current; Prefect's own result cache is off. Prepare the environment (flows.server.settings) before importing this.
"""

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.pipeline.console import RunConsole
from flows.pipeline.run import PipelineRun
from flows.server.signals import stopping
from tasks.dvc.lockfile import read_lock, sort_like_dvc
from tasks.ledger.events import close_run
from tasks.ledger.run_context import run_context
from tasks.nodes.placement import read_placement
from tasks.project.graph import read_graph
from tasks.run import interrupted
from tasks.run.plan import make_plan
from tasks.run.selection import select

# The environment of the stages; None = that of this process. The command line sets it to what it was before Prefect's settings went in.
stage_environment: dict[str, str] | None = None

SIDE_BY_SIDE: Any = ThreadPoolTaskRunner(max_workers=64)  # the cores say how many really are


@flow(name="pipeline", task_runner=SIDE_BY_SIDE, persist_result=False, validate_parameters=False)
def pipeline(
    stages: list[str] | None = None, start: str | None = None, force: list[str] | None = None, placement: str | None = None
) -> State[Any]:
    """Runs `stages` and what they need (None: all), from the stage `start` on, in the project at the current directory.

    Stages of `force` run even when they are current. `placement`: a file of infra/placements; None: all here. Each stage ends
    Completed, Cached or Failed; those behind a failed one, NotReady. The flow fails with the failed stages' messages.
    """
    root = Path.cwd()
    graph = read_graph(root)
    names = select(root, graph, stages, start)
    placed = read_placement(root, placement)
    before = list(read_lock(root))
    plan = make_plan(root, graph, names, force)
    context = run_context(root, str(flow_run.id or ""))
    if any(not plan[name].current for name in names):
        interrupted.journal_start(root, names)
    with RunConsole(names) as console:
        run = PipelineRun(root, graph, plan, console, context, placed, frozenset(force or ()), stage_environment)
        with stopping(run.stop):
            failures = _submit(run, names)
        run.close()
    sort_like_dvc(root, before, stages)
    interrupted.record_interrupted(root, graph, context)
    state = "Cancelled" if run.stopped else "Failed" if failures else "Completed"
    close_run(root, context, state, names)
    if run.stopped:
        return Cancelled(message="stopped from outside")
    if failures:
        return Failed(message="\n".join(f"{name}: {message}" for name, message in failures.items()))
    return Completed(message=f"{len(names)} stages, {len(run.acted)} of them anew")


def _submit(run: PipelineRun, names: list[str]) -> dict[str, str]:
    """Submits every stage behind its upstreams, waits for all; returns the messages of those that failed."""
    futures: dict[str, Any] = {}
    for name in names:
        work: Any = task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)(run.stage)
        futures[name] = work.submit(name, wait_for=[futures[other] for other in run.graph.upstream(name) if other in futures])
    for future in futures.values():
        future.wait()
    failures = {}
    for name, future in futures.items():
        if not future.state.is_final():  # NotReady: a stage it needs failed
            run.console.finished(name, "Skipped")
        elif future.state.is_failed() or future.state.is_crashed():
            failures[name] = future.state.message or "failed"
            if run.console.rows[name].state != "Failed":  # not the stage but something around it
                run.console.finished(name, "Failed", note=failures[name])
    return failures
