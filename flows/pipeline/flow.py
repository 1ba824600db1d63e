"""The pipeline as a Prefect flow: one task for each stage, in the order of dvc.yaml, independent ones in parallel.

DVC decides what is current; Prefect's own result cache is off. Prepare the environment (flows.server.settings) before importing this.
"""

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.pipeline.console import RunConsole
from flows.pipeline.run import PipelineRun
from flows.server.signals import stopping
from tasks.dvc.lockfile import read_lock, sort_like_dvc
from tasks.ledger.events import close_run
from tasks.ledger.log import adopt
from tasks.ledger.run_context import run_context
from tasks.nodes.placement import read_placement
from tasks.project.graph import read_graph
from tasks.project.missing_deps import check_template_deps
from tasks.project.output_folders import check_output_folders, drop_other_shards
from tasks.run import interrupted
from tasks.run.plan import make_plan
from tasks.run.selection import select

# The environment of the stages; None = that of this process. The callers set it to the environment without Prefect's settings. A module
# variable and not a parameter of the flow, because Prefect would store a parameter, with every secret in it, on its server.
stage_environment: dict[str, str] | None = None

# What the last run ended as, once all of it is on record. Prefect's server may have gone away by then, and would not tell.
ended: State[None] | None = None

# Enough threads for every stage that may wait: PipelineRun.cores limits how many work at the same time.
THREADS: Any = ThreadPoolTaskRunner(max_workers=64)


@flow(name="pipeline", task_runner=THREADS, persist_result=False, validate_parameters=False)
def pipeline(
    stages: list[str] | None = None, start: str | None = None, force: list[str] | None = None, placement: str | None = None
) -> State[None]:
    """Runs `stages` and what they need (None: all), from the stage `start` on, in the project at the current directory.

    Stages of `force` run even when they are current. `placement`: a file of infra/placements; None: all on this machine. Each stage
    ends Completed, Cached or Failed; those behind a failed one, NotReady. The flow fails with the failed stages' messages.
    """
    root = Path.cwd()
    graph = read_graph(root)
    names = select(root, graph, stages, start)
    check_template_deps(root, graph, names)
    check_output_folders(root, graph, names)
    drop_other_shards(root, graph)
    nodes = read_placement(root, placement)
    lock_order = list(read_lock(root))
    plan = make_plan(root, graph, names, force)
    context = run_context(root, str(flow_run.id or ""))
    adopt(root)
    with RunConsole(names) as console:
        run = PipelineRun(root, graph, plan, console, context, nodes, frozenset(force or ()), stage_environment)
        with stopping(run.stop):
            failures = _submit(run, names)
        run.close()
    if list(read_lock(root)) != lock_order:  # DVC appends what ends, side by side and over several runs: one order for all of them
        sort_like_dvc(root, [], None)
    interrupted.record_interrupted(root, graph, context)
    state = "Cancelled" if run.stopped else "Failed" if failures else "Completed"
    close_run(root, context, state, names)
    global ended
    if run.stopped:
        ended = Cancelled(message="stopped from outside")
    elif failures:
        ended = Failed(message="\n".join(f"{name}: {message}" for name, message in failures.items()))
    else:
        ended = Completed(message=f"{len(names)} stages, {len(run.acted)} of them run or restored")
    return ended


def _submit(run: PipelineRun, names: list[str]) -> dict[str, str]:
    """Submits every stage behind its upstreams, waits for all; returns the messages of those that failed."""
    futures: dict[str, PrefectFuture[State[None]]] = {}
    for name in names:
        stage_task = task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)(run.stage)
        upstream = [futures[other] for other in run.graph.upstream(name) if other in futures]
        futures[name] = stage_task.submit(name, return_state=False, wait_for=upstream)
    for future in futures.values():
        future.wait()
    failures = {}
    for name, future in futures.items():
        if not future.state.is_final():  # NotReady: a stage it needs failed
            run.console.finished(name, "Skipped")
        elif future.state.is_failed() or future.state.is_crashed():
            failures[name] = future.state.message or "failed"
            if run.console.rows[name].state != "Failed":  # the task failed outside of the stage, so `report` was not reached
                run.console.finished(name, "Failed", note=failures[name])
    return failures
