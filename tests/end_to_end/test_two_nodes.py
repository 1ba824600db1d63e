"""All stages on two nodes, each with its own checkout, against the run of one machine."""

import json
import subprocess
from collections.abc import Iterator

import pytest

from tasks.dvc.lockfile import read_lock
from tests.support import node_farm, postgres, project_clone
from tests.support.node_farm import Farm
from tests.support.project_clone import STAGES, SmokeRun, contents, output_hashes, states

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

UP_TO_TRACES = ("fetch", "ingest", "embed", "tokenize", "retrieve", "traces")


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, server: str) -> Iterator[Farm]:
    folder = tmp_path_factory.mktemp("nodes")
    home = project_clone.clone(folder / "home")
    with (
        # With SQLite the shared server would stop answering now and then under the workers (docs/schedules.md), and others use it too.
        node_farm.farm(folder, home, server=server if postgres.installed() else "") as made,
        made.worker(made.clone("one"), limit=1),
        made.worker(made.clone("two"), limit=1),
    ):
        yield made.ready()


def test_two_nodes_give_the_hashes_of_one_machine(smoke: SmokeRun, farm: Farm) -> None:
    result = farm.run("run", "--profile", "smoke", "--placement", "farm")
    assert states(result) == dict.fromkeys(STAGES, "Completed"), result.stdout
    assert output_hashes(farm.home) == output_hashes(smoke.root)
    assert read_lock(farm.home) == read_lock(smoke.root)
    assert contents(farm.home / "data") == contents(smoke.root / "data")
    events = [json.loads(line) for line in (farm.home / ".gr2/lineage/events.jsonl").read_text().splitlines()]
    ran = [event["job"]["name"] for event in events if event["eventType"] == "COMPLETE" and event["job"]["name"] in STAGES]
    assert sorted(ran) == sorted(STAGES)


def test_a_third_checkout_gets_what_they_made_and_runs_nothing(smoke: SmokeRun, farm: Farm) -> None:
    """It has neither dvc.lock nor a cache: only the code, the parameters and the remote. The stages up to the first that asks for most of
    what is before it: the outputs of all came to the orchestrator in this way already."""
    third = farm.clone("third")
    assert not (third / "dvc.lock").exists()
    result = farm.run("run", "traces", "--profile", "smoke", root=third)
    assert states(result) == dict.fromkeys(UP_TO_TRACES, "Cached"), result.stdout
    assert result.stdout.count("restored from DVC's remote") == len(UP_TO_TRACES)
    whole = read_lock(smoke.root)
    assert read_lock(third) == {name: whole[name] for name in UP_TO_TRACES}
    folders = ["raw", *(name for name in UP_TO_TRACES if name != "fetch")]
    assert [contents(third / "data" / name) for name in folders] == [contents(smoke.root / "data" / name) for name in folders]
    verified = subprocess.run(["git", "status", "--porcelain"], cwd=third, capture_output=True, text=True, check=True).stdout
    assert {line.split()[-1] for line in verified.splitlines()} <= {"params.yaml", "dvc.lock"}
