"""Stages on nodes with their own checkouts: a real Prefect server on Postgres, real workers, an S3 service as DVC remote."""

import asyncio
import hashlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.workers.process import ProcessWorker

from flows.nodes.pools import make_pool
from tasks.dvc.lockfile import locked_hashes, read_lock
from tasks.ledger.events import read_events
from tasks.system import processes
from tasks.system.errors import ProjectError
from tests.support import dvc_toy, node_farm, postgres, prefect_server
from tests.support.node_farm import Farm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder = tmp_path_factory.mktemp("farm")
    with ExitStack() as held:
        database = held.enter_context(postgres.if_installed())
        made = held.enter_context(node_farm.farm(folder, dvc_toy.make(folder / "home"), database))
        for name in ("one", "two", "three", "four"):  # three of them are lost on the way
            held.enter_context(made.worker(made.clone(name), GR2_NODE_GPUS="0"))
        yield made.ready()


def test_a_run_on_two_nodes_gives_the_lock_of_a_local_one(farm: Farm, tmp_path: Path) -> None:
    alone = dvc_toy.make(tmp_path / "alone")
    dvc_toy.dvc(alone, "repro")
    (farm.home / ".env").write_text("TOKEN=planted-for-no-node")
    result = farm.run("run", "--placement", "farm")
    (farm.home / ".env").unlink()
    assert set(dvc_toy.states(result).values()) == {"Completed"}, result.stdout
    assert result.stdout.count("nodes do not get .env: ") == 1, "said once a run"
    batch = ["git", "cat-file", "--batch", "--batch-all-objects"]
    for repository in (farm.folder / "origin.git", farm.home):
        assert b"planted-for-no-node" not in subprocess.run(batch, cwd=repository, capture_output=True, check=True).stdout
    assert read_lock(farm.home) == read_lock(alone)
    assert (farm.home / "data/d/out.txt").read_text() == (alone / "data/d/out.txt").read_text()
    assert not (farm.home / "spans").exists(), "a stage ran in the orchestrator's checkout"
    assert set(dvc_toy.states(farm.run("run", "--placement", "farm")).values()) == {"Cached"}
    node = _completed(farm.home)
    assert {facets["gr2_run"]["pool"] for facets in node} == {"nodes"}, "where a stage ran is on record"
    assert all(facets["gr2_hardware"]["cores"] and facets["gr2_prefect"]["node_flow_run"] for facets in node)
    third = farm.clone("third")
    restored = farm.run("run", root=third)  # no placement: whatever is missing would run here
    assert set(dvc_toy.states(restored).values()) == {"Cached"} and not (third / "spans").exists(), restored.stdout
    assert read_lock(third) == read_lock(alone)


@pytest.mark.skipif(not postgres.installed(), reason="no PostgreSQL on this machine (Debian: apt-get install postgresql)")
def test_the_server_kept_it_all_in_postgres(farm: Farm) -> None:
    import asyncpg

    async def names() -> set[str]:
        connection = await asyncpg.connect(farm.database.replace("+asyncpg", ""))
        try:
            return {row["name"] for row in await connection.fetch("select name from flow_run")}
        finally:
            await connection.close()

    assert {"a", "b", "c", "d"} <= asyncio.run(names())


def test_workers_that_start_together_agree_on_a_pool(farm: Farm) -> None:
    together, template = threading.Barrier(6), ProcessWorker.get_default_base_job_template()

    def start() -> None:
        with SyncPrefectClient(farm.url) as client:
            together.wait()
            make_pool(client, "new", "process", template)

    with ThreadPoolExecutor(6) as threads:
        for made in [threads.submit(start) for _ in range(6)]:
            made.result()
    with (
        SyncPrefectClient(farm.url) as client,
        pytest.raises(ProjectError, match="a pool 'new' of type process, the placement wants kubernetes"),
    ):
        make_pool(client, "new", "kubernetes", template)


def test_a_lost_node_costs_a_try_and_nothing_else(farm: Farm) -> None:
    """kill -9 of everything on the node that has the stage; another one takes it over, and the run goes on."""
    set_a(farm, "{x: 11, sleep: 6}")
    with running(farm, "b") as process:
        prefect_server.wait_for(lambda: at_work(farm))
        lost = at_work(farm)[0]
        processes.kill_and_wait(processes.marked_processes("GR2_NODE_HOME", str(lost)))
        output = process.communicate(timeout=1200)[0].decode()
    assert process.returncode == 0, output
    assert "trying again" in output
    assert states(output) == {"a": "Completed", "b": "Completed"}


def test_a_worker_that_is_stopped_hands_its_stage_over(farm: Farm) -> None:
    """SIGTERM, as before the end of an allocation: the stage ends at once, without a lease running out, and goes to another node."""
    set_a(farm, "{x: 12, sleep: 6}")
    with running(farm, "a") as process:
        prefect_server.wait_for(lambda: at_work(farm))
        farm.workers[at_work(farm)[0]].terminate()
        output = process.communicate(timeout=1200)[0].decode()
    assert process.returncode == 0, output
    assert "its worker was stopped" in output and "trying again" in output and "lost" not in output


def test_kill_9_of_a_nodes_worker_leaves_nothing_at_work(farm: Farm) -> None:
    """Of `gr2 worker` alone: what it started ends with it, and the stage goes to another node without a lease running out."""
    set_a(farm, "{x: 19, sleep: 6}")
    with running(farm, "a") as process:
        prefect_server.wait_for(lambda: at_work(farm))
        worker = farm.workers[at_work(farm)[0]]
        family = psutil.Process(worker.pid).children(recursive=True)
        worker.kill()
        output = process.communicate(timeout=1200)[0].decode()
    assert process.returncode == 0, output
    assert "its worker was stopped" in output and "trying again" in output and "lost" not in output
    assert len(family) > 3 and not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_an_orchestrator_that_was_killed_finds_its_stage_again(farm: Farm) -> None:
    set_a(farm, "{x: 13, sleep: 15}")
    with running(farm, "a") as process:
        prefect_server.wait_for(lambda: at_work(farm))
        prefect_server.end_group(process, signal.SIGKILL)
    again = farm.run("run", "a", "--placement", "farm")
    assert "a node runs it already" in again.stdout or "restored from DVC's remote" in again.stdout  # it had ended by then
    assert "placed on pool" not in again.stdout and set(dvc_toy.states(again)) == {"a"}


def test_gpus_are_never_shared(farm: Farm) -> None:
    """Two stages that could run side by side want the one GPU of the machine, and of the pool."""
    set_a(farm, "{x: 14}", b="{x: 2, sleep: 2}", c="{x: 2, sleep: 2}", resources="{b: {gpus: 1}, c: {gpus: 1}}")
    placement = farm.home / "infra/placements/farm.yaml"
    with edited(placement, placement.read_text()):
        node_farm.place(farm.home, pools={"nodes": {"type": "process", "gpus": 1}}, rules=[{"min_gpus": 1, "pool": "nodes"}])
        result = farm.run("run", "c", "b", "--placement", "farm")
    assert set(dvc_toy.states(result).values()) == {"Completed"}
    assert result.stdout.count("placed on pool 'nodes'") == 2  # b and c; a wants no GPU and runs here
    spans = sorted(tuple(map(float, path.read_text().split()))[:2] for path in farm.folder.glob("*/.gr2/node/*/spans/[bc]"))[-2:]
    assert spans[0][1] <= spans[1][0]


def test_a_stage_of_two_nodes_runs_once_on_each(farm: Farm) -> None:
    """Both know the place to meet, which node 0 chose; node 0's outputs count."""
    set_a(farm, "{x: 18, sleep: 15, nodes: 2}")  # both sleep: node 1 gets its request when node 0 has published its address
    words = farm.home / "stages/a/words.py"
    with edited(words, words.read_text() + RECORDS_ITS_RANK):
        result = farm.run("run", "a", "--placement", "farm")
    assert dvc_toy.states(result) == {"a": "Completed"}
    assert "placed on pool 'nodes' (node 1 of 2)" in result.stdout
    ranks = [json.loads(path.read_text()) for path in farm.folder.glob("*/.gr2/node/*/spans/place-*")]
    assert sorted(one["NODE_RANK"] for one in ranks) == ["0", "1"]
    assert {one["NODES"] for one in ranks} == {"2"} and len({(one["MASTER_ADDR"], one["MASTER_PORT"]) for one in ranks}) == 1
    assert (farm.home / "data/a/out.txt").read_text() == "a18\n"


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


def _completed(root: Path) -> list[dict[str, Any]]:
    return [
        event["run"]["facets"] for event in read_events(root) if event["eventType"] == "COMPLETE" and event["job"]["name"] != "pipeline"
    ]


def set_a(farm: Farm, values: str, b: str = "{x: 1}", c: str = "{x: 1}", resources: str = "{}") -> None:
    (farm.home / "params.yaml").write_text(f"a: {values}\nb: {b}\nc: {c}\nd: {{x: 1}}\nresources: {resources}\n")


RECORDS_ITS_RANK = """
import json, os, pathlib
pathlib.Path("spans").mkdir(exist_ok=True)
rendezvous = {name[4:]: value for name, value in os.environ.items() if name.startswith(("GR2_NODES", "GR2_NODE_RANK", "GR2_MASTER"))}
pathlib.Path("spans/place-" + rendezvous.get("NODE_RANK", "none")).write_text(json.dumps(rendezvous))
"""


@contextmanager
def edited(path: Path, text: str) -> Iterator[None]:
    before = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)


@contextmanager
def running(farm: Farm, *stages: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`gr2 run --placement farm` at work, on all stages or some."""
    command = [sys.executable, "-m", "flows.cli", "run", *stages, "--placement", "farm"]
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
