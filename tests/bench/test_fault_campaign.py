"""An excerpt of the fault campaign (bench/faults.py), and that its watch and its checks see what they are there to see."""

import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))

import fault_kinds
import fault_project
from fault_table import table
from fault_trial import Trial
from fault_watch import ABSENT, Watch, content, dvc_hash

from tasks.dvc.lockfile import locked_hashes, read_lock

pytestmark = pytest.mark.slow
IN_WRITE = "killed inside a write: dvc.lock"


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory, server: str) -> Iterator[tuple[fault_project.Toy, Path, str]]:
    """The finished diamond, a folder for trials, a Prefect server."""
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", server)  # the first run needs no server
        patch.setenv("DVC_SITE_CACHE_DIR", str(folder / "site"))
        yield fault_project.Toy(folder), folder, server


def trial(campaign: tuple[fault_project.Toy, Path, str], name: str, stage: str, seed: int) -> Trial:
    project, folder, url = campaign
    kind = next(own for own in fault_kinds.KINDS if own.name == name)
    return Trial(project, kind, stage, seed, random.Random(seed), {"run": 10.0, "stage": 0.5}, folder / "trial", url)


def test_the_contents_worked_out_beforehand_are_those_of_a_run(campaign: tuple[fault_project.Toy, Path, str]) -> None:
    base = campaign[0].base
    locked = {path: own["hash"] for entry in read_lock(base).values() for path, own in locked_hashes(entry["outs"]).items()}
    worked_out = fault_project._toy_contents({})
    assert {out: dvc_hash(versions[-1]) for out, versions in worked_out.items()} == locked
    assert {out: [content(base / out)] for out in worked_out} == worked_out


@pytest.mark.parametrize(("name", "stage"), [("kill -9 of the stage", "c"), ("damaged cache object, needed", "d"), (IN_WRITE, "c")])
def test_faults_cost_one_more_run_and_nothing_else(campaign: tuple[fault_project.Toy, Path, str], name: str, stage: str) -> None:
    found = trial(campaign, name, stage, 3).run()
    assert found["hit"] and found["looks"] > 10
    assert found["violations"] == []
    assert "| toy | " + name + " | 1 |" in table([{"project": "toy", "trial": 0, "seed": 3, "kind": name, "stage": stage, **found}], [])


def test_the_checks_see_a_wrong_result(campaign: tuple[fault_project.Toy, Path, str]) -> None:
    """A finished project where one letter of an output is another, of the same size and time; and a half-written folder next to it."""
    own = trial(campaign, "kill -9 of the stage", "d", 4)
    own._clean()
    own.folder.mkdir()
    own.good = campaign[0].fresh(own.root, "d", 4)
    own.good = fault_project._toy_contents({})
    own.env = campaign[0].env(own.root, own.mark)
    own._results()
    assert own.wrong == []
    out = own.root / "data/d/out.txt"
    status = out.stat()
    out.write_text(out.read_text().replace("d1", "d9"))
    os.utime(out, ns=(status.st_atime_ns, status.st_mtime_ns))
    (own.root / "data/.d.partial").mkdir()
    own._results()
    own._nobody_left()
    assert any(what == "data/d/out.txt is not what an undisturbed run makes" for what in own.wrong), own.wrong
    assert any(what.startswith("gr2 lineage --verify: data/d/out.txt") for what in own.wrong), own.wrong
    assert "left over: data/.d.partial" in own.wrong


def test_the_watch_sees_half_a_file(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.write_text("old" * 1000)
    old = content(whole)
    whole.write_text("new" * 1000)
    new = content(whole)
    assert old and new
    good = {"out": [old, new]}

    def write(pause_s: float) -> None:
        with (tmp_path / "out").open("w") as file:
            for _ in range(4):
                file.write("new" * 250)
                file.flush()
                time.sleep(pause_s)

    with Watch(tmp_path, good) as watch:
        (tmp_path / "beside").write_text("new" * 1000)
        (tmp_path / "beside").replace(tmp_path / "out")
        time.sleep(0.3)
    assert watch.looks and not watch.bad
    with Watch(tmp_path, good) as watch:
        writer = threading.Thread(target=write, args=(0.3,))
        writer.start()
        writer.join()
    assert list(watch.bad) == ["out"]
    assert good["out"][1] == content(tmp_path / "out") and ABSENT in new
