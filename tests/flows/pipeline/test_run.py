"""The three steps of a stage, each on its own, without DVC or a server."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from flows.nodes.messages import NodeFacts
from flows.pipeline.console import RunConsole
from flows.pipeline.outcome import Broken, Current, Ran, Restore, Restored, RunHere, Skip, Stopped
from flows.pipeline.run import PipelineRun
from tasks.ledger.run_context import RunContext
from tasks.nodes.placement import read_placement
from tasks.project.graph import read_graph
from tasks.run.plan import Plan, StagePlan
from tasks.run.stage import Finished
from tests.support import dvc_toy


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PipelineRun:
    """The diamond, of which `a` and `d` are current; no remote, no nodes."""
    root = dvc_toy.make(tmp_path / "toy")
    plan = Plan(tuple(StagePlan(name, action) for name, action in zip("abcd", ("cached", "run", "run", "cached"), strict=True)))
    console = RunConsole("abcd", Console(file=io.StringIO()))
    monkeypatch.setattr(PipelineRun, "_restorable", lambda run, stage: "")
    return PipelineRun(root, read_graph(root), plan, console, RunContext({}, ""), read_placement(root, None), frozenset("c"))


def test_decide(run: PipelineRun) -> None:
    a, b, c, d = (run.graph[name] for name in "abcd")
    assert [run.decide(stage) for stage in (a, b, c, d)] == [Skip(a), RunHere(b, False), RunHere(c, True), Skip(d)]
    run.acted.add("b")
    assert run.decide(d) == RunHere(d, False), "DVC is asked again once a stage before it has acted"


def test_execute(run: PipelineRun, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c, d = (run.graph[name] for name in "abcd")
    ends = {"b": (True, False), "c": (False, True), "d": (False, False)}  # ran, restored
    monkeypatch.setattr(run.runner, "run", lambda stage, *more, **options: Finished(stage.name, *ends[stage.name], 1.5, 300))
    outcomes = [run.execute(action) for action in (Skip(a), RunHere(b, False), Restore(c, "remote"), RunHere(d, False))]
    assert outcomes == [Current(), Ran(1.5, peak_memory_mb=300), Restored("remote"), Current()]
    assert run.acted == {"b", "c"}


def test_report(run: PipelineRun) -> None:
    state = run.report("a", Ran(2.0, NodeFacts(host="gpu1")))
    assert state.is_completed() and state.message == "ran for 2.0 s on gpu1"
    assert run.report("b", Broken("no rows", 1.0)).is_failed()
    assert run.report("c", Stopped("stopped before it began", 0.0)).is_cancelled()
    assert run.report("d", Current()).name == "Cached"
    assert [row.state for row in run.console.rows.values()] == ["Completed", "Failed", "Skipped", "Cached"]
    state = run.report("a", Ran(2.0, not_sent="the remote is full"))
    assert state.is_failed() and state.message == "the remote is full"


def test_a_failed_stage_shows_the_end_of_its_log(run: PipelineRun) -> None:
    log = run.root / ".gr2/logs/b.log"
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"row {row}\n" for row in range(40)) + "b: no rows\n")
    run.report("b", Broken("no rows", 1.0, Path(".gr2/logs/b.log")))
    shown = run.console.console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.split(" | ")[1].strip() for line in shown] == [
        "Failed in 1.0 s: no rows", *(f"row {row}" for row in range(26, 40)), "b: no rows", "all that it printed: .gr2/logs/b.log"
    ]  # fmt: skip
    log.write_text("b: no rows\n")
    run.report("b", Broken("no rows", 1.0, Path(".gr2/logs/b.log")))
    again = run.console.console.file.getvalue().splitlines()[len(shown) :]  # type: ignore[attr-defined]
    assert len(again) == 2, "the message is all there is"
