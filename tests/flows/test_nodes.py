"""Stages on two nodes with checkouts of their own: a real Prefect server on Postgres, two real workers, an S3 service as DVC remote."""

import hashlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dvc_toy
import node_farm
import prefect_server
import psutil
import pytest
from node_farm import Farm

from tasks import slots
from tasks.identity import locked_hashes, read_lock

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder = tmp_path_factory.mktemp("farm")
    with (
        node_farm.farm(folder, dvc_toy.make(folder / "home")) as made,
        made.worker(made.clone("one"), GR2_NODE_GPUS="0"),
        made.worker(made.clone("two"), GR2_NODE_GPUS="0"),
    ):
        yield made


def test_a_run_on_two_nodes_gives_the_lock_of_a_local_one(farm: Farm, tmp_path: Path) -> None:
    alone = dvc_toy.make(tmp_path / "alone")
    dvc_toy.dvc(alone, "repro")
    result = farm.run("run", "--placement", "farm")
    assert set(dvc_toy.states(result).values()) == {"Completed"}, result.stdout
    assert read_lock(farm.home) == read_lock(alone)
    assert (farm.home / "data/d/out.txt").read_text() == (alone / "data/d/out.txt").read_text()
    assert not (farm.home / "spans").exists(), "a stage ran in the orchestrator's checkout"
    assert set(dvc_toy.states(farm.run("run", "--placement", "farm")).values()) == {"Cached"}
    third = farm.clone("third")
    restored = farm.run("run", root=third)  # no placement: whatever is missing would run here
    assert set(dvc_toy.states(restored).values()) == {"Cached"} and not (third / "spans").exists(), restored.stdout
    assert read_lock(third) == read_lock(alone)


def test_a_lost_node_costs_a_try_and_nothing_else(farm: Farm) -> None:
    """kill -9 of everything on the node that has the stage; the other one takes it over."""
    set_a(farm, "{x: 11, sleep: 6}")
    with running(farm) as process:
        prefect_server.wait_for(lambda: at_work(farm))
        lost = at_work(farm)[0]
        slots.end_orphans("GR2_NODE_HOME", str(lost))
        output = process.communicate(timeout=120)[0].decode()
    assert process.returncode == 0, output
    assert "trying again" in output
    assert set(states(output).values()) == {"Completed"}
    with farm.worker(lost):  # its host is back
        set_a(farm, "{x: 12}")
        assert set(dvc_toy.states(farm.run("run", "--placement", "farm")).values()) == {"Completed"}


def test_an_orchestrator_that_was_killed_finds_its_stage_again(farm: Farm) -> None:
    set_a(farm, "{x: 13, sleep: 8}")
    with running(farm) as process:
        prefect_server.wait_for(lambda: at_work(farm))
        prefect_server.end_group(process, signal.SIGKILL)
    again = farm.run("run", "a", "--placement", "farm")
    assert "a node is at it already" in again.stdout
    assert dvc_toy.states(again) == {"a": "Completed"}


def test_gpus_are_never_shared(farm: Farm) -> None:
    """Two stages that could run side by side want the one GPU of the machine, and of the pool."""
    text = (farm.home / "dvc.yaml").read_text()
    (farm.home / "dvc.yaml").write_text(text.replace("gpus: 0", "gpus: 1"))
    node_farm.place(farm.home, pools={"nodes": {"type": "process", "gpus": 1}}, rules=[{"min_gpus": 1, "pool": "nodes"}])
    (farm.home / "params.yaml").write_text("a: {x: 14}\nb: {x: 1, sleep: 2}\nc: {x: 1, sleep: 2}\nd: {x: 1}\n")
    result = farm.run("run", "--placement", "farm")
    assert set(dvc_toy.states(result).values()) == {"Completed"}
    spans = sorted(tuple(map(float, path.read_text().split()))[:2] for path in farm.folder.glob("*/.gr2/node/*/spans/[bc]"))[-2:]
    assert spans[0][1] <= spans[1][0]


def test_what_cannot_pass_is_not_tried_again(farm: Farm) -> None:
    set_a(farm, "{x: 16, fail: x must not be 16}")
    result = farm.run("run", "a", "--placement", "farm", ok=False)
    assert result.returncode == 1 and "x must not be 16" in result.stderr
    assert "trying again" not in result.stdout
    assert result.stdout.count("placed on pool") == 1


def test_a_damaged_upload_is_found_and_made_anew(farm: Farm) -> None:
    """An object of the remote is cut short: another checkout must neither take it nor fail, and mends the remote."""
    set_a(farm, "{x: 17}")
    farm.run("run", "a", "--placement", "farm")
    md5 = locked_hashes(read_lock(farm.home)["a"]["outs"])["data/a/out.txt"]["hash"]
    key = f"dvc/files/md5/{md5[:2]}/{md5[2:]}"
    store = farm.store()
    store.put_object(Bucket="store", Key=key, Body=b"a1")
    other = farm.clone("other")
    (other / "params.yaml").write_text((farm.home / "params.yaml").read_text())
    result = farm.run("run", "a", root=other)
    assert dvc_toy.states(result) == {"a": "Completed"}
    assert read_lock(other)["a"] == read_lock(farm.home)["a"]
    dvc_toy.call(other, sys.executable, "-m", "dvc", "push", "a", **farm.env)
    assert hashlib.md5(store.get_object(Bucket="store", Key=key)["Body"].read(), usedforsecurity=False).hexdigest() == md5


def test_what_a_placement_cannot_do_is_said_before_anything_runs(farm: Farm) -> None:
    node_farm.place(farm.home, rules=[{"pool": "node"}])
    result = farm.run("run", "--placement", "farm", ok=False)
    assert result.returncode == 2 and "there is no pool 'node'; did you mean 'nodes'" in result.stderr


def set_a(farm: Farm, values: str) -> None:
    (farm.home / "params.yaml").write_text(f"a: {values}\nb: {{x: 1}}\nc: {{x: 1}}\nd: {{x: 1}}\n")


@contextmanager
def running(farm: Farm) -> Iterator["subprocess.Popen[bytes]"]:
    """`gr2 run --placement farm` at work."""
    command = [sys.executable, "-m", "flows.cli", "run", "--placement", "farm"]
    env = {**dvc_toy.environment(), "PYTHONPATH": str(dvc_toy.ROOT), **farm.env}
    process = subprocess.Popen(command, cwd=farm.home, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
    finally:
        prefect_server.end_group(process)


def at_work(farm: Farm) -> list[Path]:
    """The checkouts of nodes where a stage of the toy is at work."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cmdline()[1:2] == ["-m"] and process.cmdline()[2].startswith("stages."):
                found.append(Path(process.cwd()))
    return [root for root in farm.folder.iterdir() if any(root in path.parents for path in found)]


def states(output: str) -> dict[str, str]:
    return {row.split()[0]: row.split()[1] for row in output[output.rindex("stage ") :].splitlines()[1:] if row.strip()}
