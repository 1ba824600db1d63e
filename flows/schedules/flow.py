"""The flow that a schedule starts: fetches new data, runs what is not current, compares with the last model,
proposes or promotes the new one, writes a record.

A worker runs it in the checkout (flows.commands.server.worker). However it ends, a record in .gr2/records says which of
tasks.run.history.OUTCOMES it was.
"""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run

from flows.pipeline import flow as pipelines
from flows.pipeline.params_check import check_params
from flows.render.promotion import write_page
from flows.schedules.deployments import profile_list
from flows.schedules.reconcile import reconcile_runs
from flows.server.connection import connected
from flows.server.settings import without_prefect
from tasks.domain.compare import compare_with_previous, output_hashes
from tasks.domain.raw_data import fetch_stages, raw_changes
from tasks.ledger.events import read_events
from tasks.ledger.run_context import git_revision
from tasks.project import profiles
from tasks.project.graph import read_graph
from tasks.promotion.decide import has_artifacts, propose
from tasks.promotion.record import who, write_decision
from tasks.run.history import Record, last_completed, now, read_records, write_record
from tasks.run.plan import make_plan
from tasks.system.errors import ProjectError
from tasks.system.locks import run_lock, shared_lock

# The outcomes are the names of states; Prefect needs one of its own types for each.
STATE_TYPES = {
    "Completed": StateType.COMPLETED,
    "NothingNew": StateType.COMPLETED,
    "Skipped": StateType.CANCELLED,
    "Cancelled": StateType.CANCELLED,
    "Failed": StateType.FAILED,
}


@flow(name="scheduled", persist_result=False, validate_parameters=False)
def scheduled(
    schedule: str = "default",
    on_new_data: bool = False,
    profile: str | list[str] | None = None,
    placement: str | None = None,
) -> State[None]:
    """Runs the project at the current directory.

    `on_new_data`: only when its raw files have changed. `profile`: rendered into params.yaml first; of several, each is laid over those
    before it. `placement`: see flows.pipeline.flow.
    """
    root = Path.cwd()
    due = flow_run.scheduled_start_time.astimezone(UTC).isoformat(timespec="seconds")
    record = Record(str(flow_run.id), schedule, scheduled=due, began=now())
    with ExitStack() as locks:
        try:
            # Not waited for: a person's run holds them for hours, and this run would be out of date by then.
            locks.enter_context(run_lock(root, what=f"schedule {schedule}"))
            locks.enter_context(shared_lock(root))
        except ProjectError as busy:
            record = record.ended_as("Skipped", str(busy))
            write_record(root, record)
        else:
            write_record(root, record)
            record = _run_recorded(root, record, Request(on_new_data, profile_list(profile), placement))
            with connected("schedules") as client:  # again: more runs came due meanwhile
                reconcile_runs(client, root, current_run=record.flow_run)
    create_markdown_artifact(markdown(record), key="gr2-scheduled", description=f"{record.schedule}: {record.outcome}")
    return State(type=STATE_TYPES[record.outcome], name=record.outcome, message=record.message)


@dataclass(frozen=True)
class Request:
    """The parameters of the flow, but for the schedule's name."""

    on_new_data: bool
    profile: list[str]
    placement: str | None


def _run_recorded(root: Path, record: Record, request: Request) -> Record:
    """Runs it and writes its final record, which it returns; an error or a signal is recorded too."""
    try:
        final = _run(root, record, request)
    except ProjectError as error:
        final = record.ended_as("Failed", str(error))
    except TerminationSignal:  # while no pipeline ran; a pipeline handles the signal itself and ends Cancelled
        write_record(root, record.ended_as("Cancelled", "stopped from outside before a stage began, or after the last"))
        raise
    except BaseException as error:  # KeyboardInterrupt too: every end leaves a record
        write_record(root, record.ended_as("Failed", f"{type(error).__name__}: {error}"))
        raise
    write_record(root, final)
    return final


def _run(root: Path, record: Record, request: Request) -> Record:
    """The record of a run that came to an end by itself: nothing new, failed, cancelled or completed."""
    pipelines.stage_environment = env = without_prefect()
    with connected("schedules") as client:
        reconcile_runs(client, root, current_run=record.flow_run)
    graph = check_params(root, [profiles.render(root, *request.profile) if request.profile else None])
    if request.profile:
        profiles.apply(root, *request.profile)
    if fetching := fetch_stages(graph):
        # Forced: DVC cannot know that the publisher has a new file. A fetch of unchanged files makes nothing behind it stale.
        state = pipelines.pipeline(fetching, force=fetching, placement=request.placement, return_state=True)
        if not state.is_completed():
            return record.ended_as("Cancelled" if state.is_cancelled() else "Failed", state.message or "the raw files could not be fetched")
    changes = raw_changes(root, graph)
    record = replace(record, raw={"changes": changes}, git=git_revision(root))
    write_record(root, record)
    if request.on_new_data and not changes:
        return record.ended_as("NothingNew", "the raw files are those of the last ingest")
    if all(stage.current for stage in make_plan(root, graph).stages):
        return record.ended_as("NothingNew", "the raw files are those of the last ingest, and every stage is current")
    return _run_and_compare(root, record, request, env)


def _run_and_compare(root: Path, record: Record, request: Request, env: dict[str, str]) -> Record:
    """Runs the pipeline and compares its model with that of the last completed run, or with the workspace if there was none."""
    last = last_completed(read_records(root))
    old_hashes = last.outputs if last else output_hashes(root)  # taken before the pipeline replaces them
    state = pipelines.pipeline(placement=request.placement, return_state=True)
    ran = _ran_since(root, record.began)
    if state.is_cancelled():
        return record.ended_as("Cancelled", state.message or "stopped from outside", stages=ran)
    if not state.is_completed():
        return record.ended_as("Failed", state.message or "failed", stages=ran)
    new_hashes = output_hashes(root)
    verdict = compare_with_previous(root, old_hashes, new_hashes, env)
    verdict["against"] = f"the run of {last.began}" if last else "what was there before"
    promotion = decide_on_promotion(root, record)
    message = "; ".join(filter(None, [f"{verdict['verdict']}: {verdict['detail']}", str(promotion.get("headline", ""))]))
    return record.ended_as("Completed", message, stages=ran, outputs=new_hashes, verdict=verdict, promotion=promotion)


def decide_on_promotion(root: Path, record: Record) -> dict[str, object]:
    """Record.promotion; empty in a project without artifacts. The model is trained: no fault of the decision fails the run."""
    try:
        if not has_artifacts(root):
            return {}
        decision = propose(root, who(root, schedule=record.schedule, flow_run=record.flow_run))
        path = write_decision(root, decision)
        write_page(path.with_suffix(".html"), decision)
    except ProjectError as error:
        return {"headline": f"nothing was decided on promotion: {error}"}
    told = {"decision": decision.decision, "version": decision.version, "reasons": list(decision.reasons)}
    return {"headline": decision.headline, **told, "record": str(path.relative_to(root))}


def _ran_since(root: Path, began: str) -> tuple[str, ...]:
    """Stages whose command was started since `began`, in order of their first start."""
    order = read_graph(root).order
    starts = [event["job"]["name"] for event in read_events(root) if event["eventType"] == "START" and event["eventTime"] >= began]
    return tuple(name for name in dict.fromkeys(starts) if name in order)


def markdown(record: Record) -> str:
    """The record as Markdown, for Prefect's web interface."""
    raw = "; ".join(record.raw.get("changes", [])) or "unchanged"
    rows = {
        "due": record.scheduled,
        "began, ended": f"{record.began}, {record.ended}",
        "raw files": raw if record.raw else "not looked at",
        "stages that ran": ", ".join(record.stages) or "none",
        "revision": f"{record.git.get('revision')}{' with uncommitted changes' if record.git.get('dirty') else ''}",
        "compared with": record.verdict.get("against", "-"),
        "promotion": record.promotion.get("headline", "-"),
        **record.outputs,
    }
    table = "".join(f"| {name} | {value} |\n" for name, value in rows.items())
    return f"## {record.outcome}\n\n{record.message}\n\n| | |\n|---|---|\n{table}"
