"""Scheduled runs with a real Prefect server and a real worker: every outcome there is, and what it leaves behind."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tasks.system.locks import run_lock
from tests.support import dvc_toy, postgres
from tests.support import scheduled_toy as toy
from tests.support.prefect_server import ask, serve, wait_for

pytestmark = pytest.mark.slow
DAY = 86_400


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres.if_installed() as database, serve(tmp_path_factory.mktemp("prefect"), quick=True, **database) as url:
        yield url


@pytest.fixture(scope="module")
def missed(tmp_path_factory: pytest.TempPathFactory, server: str) -> tuple[Path, list[str]]:
    """The project with two schedules, and three runs of one that came due while there was no worker."""
    root = toy.make(tmp_path_factory.mktemp("scheduled") / "toy")
    for name, words in (("nightly", []), ("careful", ["--on-new-data"])):
        dvc_toy.gr2(root, "schedule", "--cron", "0 3 1 1 *", "--name", name, *words, PREFECT_API_URL=server)
    return root, [toy.due(server, "nightly", -days * DAY) for days in (3, 2, 1)]


@pytest.fixture(scope="module")
def worker(missed: tuple[Path, list[str]], server: str) -> Iterator[subprocess.Popen[bytes]]:
    with toy.worker(missed[0], server) as process:
        yield process


@pytest.fixture(scope="module")
def project(missed: tuple[Path, list[str]], worker: subprocess.Popen[bytes]) -> Path:
    """With a worker."""
    return missed[0]


def run(root: Path, server: str, name: str) -> dict:
    """One run of the schedule, now; its record, which must agree with the state that the server knows."""
    flow_run = toy.due(server, name)
    (state,) = toy.ended(server, flow_run)
    record = toy.records(root)[flow_run]
    assert record["outcome"] == state and record["schedule"] == name
    return record


def sleeping(root: Path, server: str, seconds: int) -> tuple[str, int]:
    """A run whose stage sft is at work; its id and the stage's pid."""
    (root / "at_work").unlink(missing_ok=True)
    text = (root / "params.yaml").read_text().splitlines()
    (root / "params.yaml").write_text("\n".join(f"  sleep: {seconds}" if "sleep" in line else line for line in text) + "\n")
    flow_run = toy.due(server, "nightly")
    wait_for(lambda: (root / "at_work").exists() and (root / "at_work").read_text())
    return flow_run, int((root / "at_work").read_text())


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]


def test_after_days_without_a_worker_the_newest_runs(missed: tuple[Path, list[str]], project: Path, server: str) -> None:
    _, runs = missed
    assert toy.ended(server, *runs) == ["Missed", "Missed", "Completed"]
    records = toy.records(project)
    assert [records[own]["outcome"] for own in runs] == ["Missed", "Missed", "Completed"]
    done = records[runs[2]]
    assert done["stages"] == ["fetch", "ingest", "sft", "evaluate"] and done["verdict"]["verdict"] == "first run"
    assert done["raw"]["changes"] == ["it has never run"] and done["scheduled"] < done["began"] <= done["ended"]
    assert done["git"]["revision"] == dvc_toy.call(project, "git", "rev-parse", "HEAD").stdout.strip()
    lock = (project / "dvc.lock").read_text()
    assert set(done["outputs"]) == {"data/evaluate/outputs.parquet", "data/sft/model"} and all(
        md5 in lock for md5 in done["outputs"].values()
    )
    assert json.loads((project / "leaked.json").read_text()) == []  # a stage hears nothing of Prefect
    (artifact,) = ask(server, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [runs[2]]}}})
    assert "## Completed" in artifact["data"] and done["outputs"]["data/sft/model"] in artifact["data"]


def test_nothing_new(project: Path, server: str) -> None:
    before = (project / "at_work").read_text()
    assert run(project, server, "nightly")["outcome"] == "NothingNew"
    dvc_toy.set_param(project, "x: 1\n  sleep", "x: 2\n  sleep")  # which is no new data
    record = run(project, server, "careful")
    assert (record["outcome"], record["stages"], record["raw"]["changes"]) == ("NothingNew", [], [])
    assert (project / "at_work").read_text() == before


def test_new_data_and_the_verdict(project: Path, server: str) -> None:
    (project / "raw.txt").write_text("good good good\n")
    better = run(project, server, "careful")
    assert better["outcome"] == "Completed" and better["stages"] == ["fetch", "ingest", "sft", "evaluate"]
    assert better["verdict"]["verdict"] == "better" and better["verdict"]["pairs"][0]["diff"] == 2.0
    assert (
        better["message"].startswith("better: rl, ndcg@5: +2.0000 [+1.5000, +2.5000]")
        and "data data/raw/raw.txt modified" in better["raw"]["changes"][0]
    )


def test_a_run_by_hand_is_not_disturbed(project: Path, server: str) -> None:
    with run_lock(project, what="gr2 run"):
        record = run(project, server, "nightly")
    assert record["outcome"] == "Skipped" and f"gr2 run (pid {os.getpid()}) is at work" in record["message"]


def test_overlap_and_cancelling(project: Path, server: str) -> None:
    outputs = (project / "data/sft/model/weights.txt").read_text()
    first, pid = sleeping(project, server, 300)
    second = toy.due(server, "nightly")
    toy.ended(server, second)
    assert alive(pid) and second not in toy.records(project)
    toy.cancel(server, first)
    assert toy.ended(server, first) == ["Cancelled"]
    records = toy.records(project)
    assert records[first]["outcome"] == "Cancelled" and records[first]["stages"] == ["fetch", "sft"]
    assert records[second]["outcome"] == "Skipped" and "still at work" in records[second]["message"]
    assert not alive(pid) and (project / "data/sft/model/weights.txt").read_text() == outputs


def test_killed_outright(project: Path, server: str) -> None:
    first, stage = sleeping(project, server, 301)
    os.kill(toy.records(project)[first]["pid"], signal.SIGKILL)
    assert toy.ended(server, first) == ["Crashed"]
    shown = json.loads(dvc_toy.gr2(project, "schedule", "history", "--json").stdout)
    assert shown[-1]["outcome"] == "Crashed" and toy.records(project)[first]["outcome"] == "Running"
    os.killpg(os.getpgid(stage), signal.SIGKILL)  # it would go on to its end, and the next run wait for it
    (project / "raw.txt").unlink()
    failed = run(project, server, "nightly")
    assert failed["outcome"] == "Failed" and "raw.txt" in failed["message"]
    assert toy.records(project)[first]["outcome"] == "Crashed"


def test_the_worker_ends_its_run_before_itself(project: Path, worker: subprocess.Popen[bytes], server: str) -> None:
    (project / "raw.txt").write_text("good\n")
    flow_run, stage = sleeping(project, server, 302)
    worker.terminate()
    assert worker.wait(600) == 0
    assert toy.ended(server, flow_run) == ["Cancelled"] and toy.records(project)[flow_run]["outcome"] == "Cancelled"
    assert not alive(stage)


def test_kill_9_of_the_worker_leaves_nothing_at_work(tmp_path: Path, server: str) -> None:
    root = toy.make(tmp_path / "other")
    dvc_toy.gr2(root, "schedule", "--cron", "0 3 1 1 *", "--name", "nightly", PREFECT_API_URL=server)
    with toy.worker(root, server) as worker:
        flow_run, stage = sleeping(root, server, 303)
        family = psutil.Process(worker.pid).children(recursive=True)
        assert stage in [process.pid for process in family]
        worker.kill()
        assert toy.ended(server, flow_run) == ["Cancelled"]
        wait_for(lambda: not any(alive(process.pid) for process in family))
