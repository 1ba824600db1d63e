"""`gr2 run` on a real project with real Prefect and DVC: order, states, what reruns, failures, and that plain DVC does the same."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tasks.ledger.events import read_events
from tests.support import dvc_toy
from tests.support.prefect_server import ask

SLOW = dvc_toy.PARAMS.replace("b:\n  x: 1", "b:\n  x: 1\n  sleep: 5").replace("c:\n  x: 1", "c:\n  x: 1\n  sleep: 5")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dvc_toy.make(tmp_path_factory.mktemp("flow") / "toy", SLOW)


def run(root: Path, server: str, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
    return dvc_toy.gr2(root, "run", *words, ok=ok, PREFECT_API_URL=server)


def span(root: Path, name: str) -> tuple[float, float]:
    began, ended = map(float, (root / "spans" / name).read_text().split())
    return began, ended


def newest_run(root: Path) -> str:
    """The id that Prefect gave the newest run of the project; the server knows of other projects too."""
    runs = [event["run"]["facets"] for event in read_events(root) if event["job"]["name"] == "pipeline"]
    return str(runs[-1]["gr2_prefect"]["flow_run"])


def task_states(root: Path, server: str) -> dict[str, str]:
    """The state names of the newest run's tasks, as the server knows them."""
    tasks = ask(server, "task_runs/filter", {"flow_runs": {"id": {"any_": [newest_run(root)]}}})
    return {task["name"]: task["state_name"] for task in tasks}


def test_diamond_runs_side_by_side_and_as_plain_dvc(project: Path, server: str) -> None:
    result = run(project, server)
    assert dvc_toy.states(result) == dict.fromkeys("abcd", "Completed")
    assert "b | running" in result.stdout and "hello from b" not in result.stdout, "a stage's output goes to its log"
    assert (project / ".gr2/logs/b.log").read_text() == "hello from b\n"
    (b_began, b_ended), (c_began, c_ended) = span(project, "b"), span(project, "c")
    if len(os.sched_getaffinity(0)) > 1:
        assert max(b_began, c_began) < min(b_ended, c_ended)
    assert span(project, "a")[1] < min(b_began, c_began) and max(b_ended, c_ended) < span(project, "d")[0]
    assert task_states(project, server) == dict.fromkeys("abcd", "Completed")
    lock = (project / "dvc.lock").read_text()
    assert "up to date" in dvc_toy.dvc(project, "repro")
    twin = dvc_toy.make(project.parent / "twin", SLOW)
    dvc_toy.dvc(twin, "repro")
    assert (twin / "dvc.lock").read_text() == lock == (project / "dvc.lock").read_text()


def test_the_order_of_the_lock_is_that_of_one_run(project: Path, server: str) -> None:
    """After runs of parts as after one of all: equal hashes give equal files."""
    parts = dvc_toy.make(project.parent / "parts", SLOW)
    for words in (("c",), ()):
        run(parts, server, *words)
    assert (parts / "dvc.lock").read_text() == (project / "dvc.lock").read_text()


def test_second_run_is_all_cached(project: Path, server: str) -> None:
    result = run(project, server)
    assert dvc_toy.states(result) == dict.fromkeys("abcd", "Cached")
    assert task_states(project, server) == dict.fromkeys("abcd", "Cached")


def test_what_a_change_reruns(project: Path, server: str) -> None:
    dvc_toy.set_param(project, "deep:\n    y: 2", "deep:\n    y: 3")
    dvc_toy.set_param(project, "sleep: 5", "sleep: 0")
    result = run(project, server)  # b makes what it made before, so d stays as it is
    assert dvc_toy.states(result) == {"a": "Cached", "b": "Completed", "c": "Cached", "d": "Cached"}
    dvc_toy.set_param(project, "c:\n  x: 1\n  sleep: 5", "c:\n  x: 2\n  sleep: 0")
    assert dvc_toy.states(run(project, server, "c")) == {"a": "Cached", "c": "Completed"}
    assert dvc_toy.states(run(project, server)) == {"a": "Cached", "b": "Cached", "c": "Cached", "d": "Completed"}


def test_run_cache_and_missing_outputs(project: Path, server: str) -> None:
    dvc_toy.set_param(project, "c:\n  x: 2\n  sleep: 0", "c:\n  x: 1\n  sleep: 5")
    (project / "data/a/out.txt").unlink()
    (project / "spans/d").unlink()
    assert dvc_toy.states(run(project, server)) == dict.fromkeys("abcd", "Cached")
    assert not (project / "spans/d").exists(), "no stage ran"
    assert (project / "data/d/out.txt").read_text() == "a1\nb1\na1\nc1\nd1\n"
    assert "up to date" in dvc_toy.dvc(project, "repro")
    dvc_toy.commit(project, "ran")


def test_failure(project: Path, server: str) -> None:
    dvc_toy.set_param(project, "b:\n  x: 1", "b:\n  x: 1\n  fail: 'no rows in x.csv; give it some'")
    dvc_toy.set_param(project, "c:\n  x: 1", "c:\n  x: 3")
    result = run(project, server, ok=False)
    assert result.returncode == 1
    assert dvc_toy.states(result) == {"a": "Cached", "b": "Failed", "c": "Completed", "d": "Skipped"}
    assert result.stderr.strip().endswith("gr2: b: no rows in x.csv; give it some")
    assert "b | all that it printed: .gr2/logs/b.log" in result.stdout and "b |   hello from b" in result.stdout
    assert "Traceback" not in result.stderr and "failed to reproduce" not in result.stderr
    assert task_states(project, server) == {"a": "Cached", "b": "Failed", "c": "Completed", "d": "NotReady"}
    newest = ask(server, f"flow_runs/{newest_run(project)}")
    assert newest["state_type"] == "FAILED" and newest["state"]["message"] == "b: no rows in x.csv; give it some"
    assert (project / "data/b/out.txt").read_text() == "a1\nb1\n" and (project / "data/d/out.txt").exists()
    dvc_toy.call(project, "git", "checkout", "-q", "params.yaml", "dvc.lock")
    status = json.loads(dvc_toy.gr2(project, "status", "--json").stdout)
    row = next(row for row in status if row["name"] == "b")
    assert row["last_run"]["state"] == "Failed" and row["made"]["place"] == "here" and row["made"]["seconds"] > 0


def processes_in(folder: Path) -> list[str]:
    """The commands of all processes that work there, a few seconds after their parent has ended."""
    for _ in range(50):
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (process / "cwd").readlink().is_relative_to(folder):
                    found.append((process / "cmdline").read_text().replace("\0", " "))
        if not found:
            break
        time.sleep(0.2)
    return found


@pytest.mark.parametrize(("number", "whom"), [(signal.SIGINT, "all"), (signal.SIGHUP, "gr2")])
def test_ctrl_c_and_a_closed_terminal(project: Path, tmp_path: Path, number: signal.Signals, whom: str) -> None:
    """With the ephemeral server, which Ctrl-C in a terminal reaches too; of the closed terminal `gr2 run` is told, and ends the rest."""
    earlier = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be ignored here, and in the child
    dvc_toy.set_param(project, "c:\n  x: 1\n  sleep: 5", "c:\n  x: 4\n  sleep: 60")
    env = {**dvc_toy.environment(), "PYTHONPATH": str(dvc_toy.ROOT), "PREFECT_HOME": str(tmp_path / "prefect")}
    child = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run", "c"], cwd=project, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    signal.signal(signal.SIGHUP, earlier)
    assert child.stdout
    while "c | running" not in child.stdout.readline():
        pass
    (os.killpg if whom == "all" else os.kill)(child.pid, number)
    _, errors = child.communicate(timeout=600)
    assert child.returncode == 130, errors
    assert "Traceback" not in errors
    assert not processes_in(project), "a stage, dvc or the server went on by itself"
    dvc_toy.call(project, "git", "checkout", "-q", "params.yaml")
    assert (project / "data/c/out.txt").read_text() == "a1\nc1\n"
    assert "up to date" in dvc_toy.dvc(project, "repro")
