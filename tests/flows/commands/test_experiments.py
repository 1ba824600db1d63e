"""Experiments side by side, their comparison, gr2 gc and gr2 promote, on the toy project with real DVC."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tasks.ledger.events import read_events
from tests.support import dvc_toy
from tests.support.prefect_server import wait_for

# As the stage's own command: says what it was given, with the content of the files it was given.
ECHO = """\
import json, pathlib, sys
words = sys.argv[1:]
files = words[words.index("--") + 1 :]
said = {"words": words[: words.index("--")], "files": [pathlib.Path(file).read_text() for file in files]}
print(json.dumps(said) if "--json" in words else said)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The diamond, whose d is called evaluate as in the real project: it writes outputs.parquet, which is a text here."""
    root = dvc_toy.make(tmp_path_factory.mktemp("experiments") / "toy")
    text = (root / "dvc.yaml").read_text()
    outs = "outs: [data/d/out.txt, data/d/model]"
    assert outs in text
    (root / "dvc.yaml").write_text(text.replace(outs, "outs: [data/evaluate/outputs.parquet, data/d/out.txt, data/d/model]"))
    with (root / "stages/d/__main__.py").open("a") as file:
        file.write('pathlib.Path("data/evaluate").mkdir(exist_ok=True)\npathlib.Path("data/evaluate/outputs.parquet").write_text(text)\n')
    package = root / "stages/tools"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "compare_runs.py").write_text(ECHO)
    dvc_toy.dvc(root, "repro", "-q")
    dvc_toy.commit(root, "ran")
    return root


@pytest.fixture
def project(ran: Path, tmp_path: Path) -> Path:
    return dvc_toy.copy(ran, tmp_path / "toy")


def leftovers(root: Path) -> list[str]:
    """Workers at work for `root`, and the folders experiments run in."""
    return [*workers(root), *(path.name for path in (root / ".dvc/tmp/exps").glob("tmp*"))]


def workers(root: Path) -> list[str]:
    """The pids of workers at work for `root`."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"queue-worker" in (process / "cmdline").read_bytes() and os.readlink(process / "cwd") == str(root):
                pids.append(process.name)
        except OSError:
            continue
    return pids


def experiments(root: Path) -> set[str]:
    refs = dvc_toy.call(root, "git", "for-each-ref", "--format=%(refname)", "refs/exps").stdout.split()
    return {ref.split("/")[-1] for ref in refs if ref.count("/") == 4}


@pytest.mark.slow
def test_a_grid_runs_what_it_changes_and_can_be_compared(project: Path) -> None:
    with (project / "stages/d/words.py").open("w") as file:
        file.write('WORDS = "D"\n')  # an edit that is not committed goes along
    result = dvc_toy.gr2(project, "run", "--queue", "--set", "c.x=2", "--set", "d.x=5", "--set", "d.x=6")
    first, second = "c.x=2_d.x=5", "c.x=2_d.x=6"
    assert f"{first} | Completed: ran c, d" in result.stdout
    assert f"{second} | Completed: ran d; from the cache: c" in result.stdout  # c was run by the first: they share the run cache
    assert experiments(project) == {first, second} and leftovers(project) == []
    assert (project / "params.yaml").read_text() == dvc_toy.PARAMS and (project / "data/d/out.txt").read_text().endswith("d1\n")
    assert "D" in (project / "stages/d/words.py").read_text()
    listed = dvc_toy.dvc(project, "exp", "show", "--csv")
    assert first in listed and second in listed
    found = json.loads(dvc_toy.gr2(project, "compare", "HEAD", first, second, "--metric", "mrr", "--model", "sft", "--json").stdout)
    assert found["files"] == ["a1\nb1\na1\nc1\nd1\n", "a1\nb1\na1\nc2\nD5\n", "a1\nb1\na1\nc2\nD6\n"]
    assert found["words"] == [
        "--model=sft",
        "--metric=mrr",
        *(f"--name={name}" for name in ("HEAD", first, second)),
        *["--slates="] * 3,
        "--json",
    ]
    assert found["params"] == {"c.x": [1, 2, 2], "d.x": [1, 5, 6]} and found["code"] == ["stages/d/words.py"]
    facts = [event["run"]["facets"] for event in read_events(project) if event["eventType"] == "COMPLETE"]
    on_record = {(own["gr2_run"]["experiment"], own["gr2_run"].get("restored"), own["gr2_metrics"]["values"]["length"]) for own in facts}
    assert on_record == {(first, None, 6), (first, None, 15), (second, "cache", 6), (second, None, 15)} and len(facts) == 4
    told = dvc_toy.gr2(project, "lineage", first).stdout  # the commit's own dvc.lock, and what the record knows of it
    assert f"dvc.lock of {first}" in told and dvc_toy.gr2(project, "lineage", "--verify").returncode == 0
    again = dvc_toy.gr2(project, "run", "--queue", "--set", "c.x=2", "--set", "d.x=6")
    assert f"{second}-2 | Completed: " in again.stdout and " ran " not in again.stdout  # its own name, and nothing to run


@pytest.mark.slow
def test_queued_now_and_started_later_a_failure_says_what_the_stage_said(project: Path) -> None:
    dvc_toy.set_param(project, "b:\n", "b:\n  fail: ''\n")
    result = dvc_toy.gr2(project, "run", "--queue", "--no-start", "b", "--set", "b.fail=too hot, too cold")
    assert "b.fail=too-hot,-too-cold | queued" in result.stdout and "Queued" in dvc_toy.dvc(project, "queue", "status")
    result = dvc_toy.gr2(project, "run", "--queue", ok=False)
    assert result.returncode == 1 and "| Failed: b: too hot, too cold" in result.stdout
    assert [(event["eventType"], event["job"]["name"]) for event in read_events(project)] == [("FAIL", "b")]
    assert leftovers(project) == [] and experiments(project) == set()
    assert "fail: ''" in (project / "params.yaml").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("moment", [" | d runs", "at once"])
def test_stopped_it_leaves_nothing_half_done(project: Path, moment: str) -> None:
    dvc_toy.set_param(project, "d:\n", "d:\n  sleep: 36000\n")
    edited = (project / "params.yaml").read_text()
    command = [sys.executable, "-m", "flows.cli", "run", "--queue", "--set", "d.x=5", "--set", "d.x=6"]
    env = {**dvc_toy.environment(), "PYTHONPATH": str(dvc_toy.ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=project, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stderr
    if moment == "at once":
        while not (project / ".dvc/tmp/exps").exists():  # it queues
            assert process.poll() is None
    else:
        for line in process.stdout:
            if moment in line:
                break
    process.send_signal(signal.SIGINT)
    assert process.wait(600) == 130 and "Traceback" not in process.stderr.read()
    assert leftovers(project) == [] and experiments(project) == set()
    assert "d.x" not in dvc_toy.dvc(project, "queue", "status")
    assert (project / "params.yaml").read_text() == edited and dvc_toy.call(project, "git", "stash", "list").stdout == ""


@pytest.mark.slow
def test_no_queue_worker_outlives_a_kill_9(project: Path) -> None:
    dvc_toy.set_param(project, "d:\n", "d:\n  sleep: 36000\n")
    command = [sys.executable, "-m", "flows.cli", "run", "--queue", "--set", "d.x=5", "--set", "d.x=6"]
    env = {**dvc_toy.environment(), "PYTHONPATH": str(dvc_toy.ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=project, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout and any(" | d runs" in line for line in process.stdout)
    family = psutil.Process(process.pid).children(recursive=True)
    assert workers(project) and any("stages.d" in one.cmdline() for one in family)
    process.kill()
    process.wait()
    wait_for(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family))


def test_without_a_commit_there_is_nothing_to_base_one_on(tmp_path: Path) -> None:
    root = dvc_toy.make(tmp_path / "toy")
    dvc_toy.call(root, "git", "update-ref", "-d", "HEAD")
    result = dvc_toy.gr2(root, "run", "--queue", "--set", "a.x=2", ok=False)
    assert result.returncode == 2 and "based on a commit, and this project has none" in result.stderr


def test_compare_finds_runs_wherever_they_are(project: Path, tmp_path: Path) -> None:
    dvc_toy.call(project, "git", "tag", "first")
    other = dvc_toy.copy(project, tmp_path / "other")
    for root, value in ((project, 2), (other, 3)):
        dvc_toy.set_param(root, "d:\n  x: 1", f"d:\n  x: {value}")
        dvc_toy.dvc(root, "repro", "-q")
    (project / "data/evaluate/outputs.parquet").unlink()  # the recorded one counts, which the cache holds
    found = json.loads(dvc_toy.gr2(project / "stages", "compare", "first", "workspace", "../../other", "--json").stdout)
    assert [text[-3:] for text in found["files"]] == ["d1\n", "d2\n", "d3\n"]
    assert found["params"] == {"d.x": [1, 2, 3]} and found["code"] == []
    said = dvc_toy.gr2(project, "compare", "first", "workspace").stdout
    assert said.endswith("parameters that differ, in the order of the runs:\n  d.x: 1 | 2\n")


def test_compare_fetches_from_the_remote_or_says_what_is_missing(project: Path, tmp_path: Path) -> None:
    dvc_toy.dvc(project, "remote", "add", "-q", "-d", "store", str(tmp_path / "store"))
    dvc_toy.dvc(project, "push", "-q")
    dvc_toy.call(project, "git", "tag", "first")
    subprocess.run(["rm", "-r", str(project / ".dvc/cache/files")], check=True)
    assert "d1" in dvc_toy.gr2(project, "compare", "first", "workspace").stdout
    subprocess.run(["rm", "-r", str(project / ".dvc/cache/files"), str(tmp_path / "store")], check=True)
    for words, message in (
        (["first", "workspace"], "first: data/evaluate/outputs.parquet ("),
        (["first", "frist"], "frist: no git revision, tag or experiment, nor a folder"),
        (["first", "HEAD~1"], "dvc.lock is not in the commit"),
        (["first"], "give two or more runs"),
        (["first", "first"], "give two or more runs, each once"),
    ):
        result = dvc_toy.gr2(project, "compare", *words, ok=False)
        assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr


def test_gc_asks_and_promote_lists(project: Path) -> None:
    for key, value in (("user.name", "t"), ("user.email", "t@example.org")):
        dvc_toy.call(project, "git", "config", key, value)
    assert "promoted/good is" in dvc_toy.gr2(project, "promote", "--keep", "good").stdout
    for value in (2, 3):
        dvc_toy.set_param(project, f"d:\n  x: {value - 1}", f"d:\n  x: {value}")
        dvc_toy.dvc(project, "repro", "-q")
    files = set((project / ".dvc/cache/files").rglob("*"))
    said = dvc_toy.gr2(project, "gc", "--dry").stdout
    assert "objects that nothing needs" in said and "data/d/" in said and "promotion" in said and "good" in said
    refused = dvc_toy.gr2(project, "gc", ok=False)
    assert refused.returncode == 2 and "say --yes" in refused.stderr and set((project / ".dvc/cache/files").rglob("*")) == files
    assert dvc_toy.gr2(project, "gc", "--yes").stdout.endswith("removed\n")
    assert set((project / ".dvc/cache/files").rglob("*")) < files
    assert "0 objects that nothing needs" in dvc_toy.gr2(project, "gc").stdout
    assert dvc_toy.dvc(project, "status").strip() == "Data and pipelines are up to date."
