"""One process of a node makes what all of them read; a failure and a killed run leave nothing that another takes for its own."""

import os
import subprocess
import sys

import pytest

from stages.shared.core.launch import BEGUN
from stages.shared.training.rows.made_once import FOLDER, made_once

SCRIPT = """
import os, sys, time
from pathlib import Path
from stages.shared.training.rows.made_once import made_once
def make(folder):
    time.sleep(0.3)
    (folder / "part").write_text(os.environ["LOCAL_RANK"])
    with Path("makers").open("a") as log:
        log.write(os.environ["LOCAL_RANK"])
    return {"rows": 3}
with made_once("sft", make) as (folder, made):
    Path(f"seen{os.environ['LOCAL_RANK']}").write_text(f"{(folder / 'part').read_text()} {made['rows']}")
    while not all(Path(f"seen{rank}").exists() for rank in range(2)):
        time.sleep(0.02)
"""


def test_one_of_two_makes_it_and_both_read_it(tmp_path):
    """What a killed launch left, finished or not, is not taken for this one's."""
    for left in ("old", "gr2-launch"):
        (tmp_path / FOLDER / "sft/node0" / left).mkdir(parents=True)
    (tmp_path / FOLDER / "sft/node0/old/made.json").write_text('{"rows": 99}')
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), BEGUN: "/tmp/gr2-launch/begun"}
    processes = [
        subprocess.Popen([sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment | {"LOCAL_RANK": str(rank), "RANK": str(rank)})
        for rank in (1, 0)
    ]
    assert [process.wait(600) for process in processes] == [0, 0]
    assert (tmp_path / "makers").read_text() == "0"
    assert [(tmp_path / f"seen{rank}").read_text() for rank in (0, 1)] == ["0 3", "0 3"]
    assert not (tmp_path / FOLDER / "sft/node0").exists()


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(folder):
        (folder / "half").write_text("")
        raise ValueError("no traces")

    with pytest.raises(ValueError, match="no traces"), made_once("sft", make):
        raise AssertionError("nothing was made")
    assert not list((tmp_path / FOLDER).rglob("half"))
