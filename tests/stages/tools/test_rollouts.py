import json

import polars as pl
import pytest

from stages.rl.watch.rollouts_table import ROLLOUTS
from stages.shared.core.schemas import write_table
from stages.tools import rollouts
from tests.support.small_project import CATALOG, make_slates, write_project

COLUMNS = ("step", "slate", "group", "sample", "order", "target_rank", "new_rank", "fault", "reward", "learnt", "advantage", "completion")
ANSWERS = [
    (1, 12, 0, 0, [2, 0, 1], 2, 0, "", 0.8667, True, 0.7071, "thought A</think> C A B\x1b[2J"),
    (1, 12, 0, 1, None, 2, None, "duplicate", -1.0, True, -0.7071, "thought B</think> C C B"),
    (3, 40, 1, 0, [0, 1, 2], 1, 1, "", 0.0, False, None, "thought C</think> A B C"),
]


def row(values):
    common = {"process": 0, "prompt": "history: x\ncandidates: y", "shown": [1, 2, 0], "tokens": 9}
    return (
        common
        | {"parts": [{"name": "rank", "value": values[8]}, {"name": "format", "value": 1.0}]}
        | dict(zip(COLUMNS, values, strict=True))
    )


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data/rl/rollouts.parquet"
    path.parent.mkdir(parents=True)
    write_table(pl.DataFrame([row(values) for values in ANSWERS], schema=ROLLOUTS), path, ROLLOUTS)
    return path


def printed(capsys, *arguments):
    rollouts.main(list(arguments))
    return capsys.readouterr().out


def rows(capsys, *arguments):
    return [entry["row"] for entry in json.loads(printed(capsys, "--json", *arguments))]


def test_a_list_and_an_answer_whole(kept, capsys):
    lines = printed(capsys).splitlines()
    assert (
        len(lines) == 4
        and "3 -> 1" in lines[1]
        and "+0.867  +0.707" in lines[1]
        and "duplicate" in lines[2]
        and "C A B\\x1b[2J" in lines[1]
    )
    one = printed(capsys, "--row", "0")
    assert "reward 0.8667 (rank 0.867, format 1.000), advantage +0.7071" in one and "target: initial rank 3, new rank 1" in one
    assert "shown:  2 3 1" in one and "answer: 3 1 2" in one and "--- prompt\nhistory: x\ncandidates: y\n" in one
    assert "--- completion\nthought A</think> C A B\\x1b[2J\n" in one
    bad = printed(capsys, "--row", "1")
    assert "no answer: duplicate" in bad and "answer:" not in bad.split("--- prompt")[0].replace("no answer:", "")
    assert "not learnt from" in printed(capsys, "--row", "2")


def test_titles_stand_beside_the_ranks(kept, capsys):
    write_project(kept.parents[2])
    slate = make_slates()[12]
    titles = [CATALOG.titles[item] for item in slate.candidates]
    four = row((1, 12, 0, 0, [2, 0, 1, 3], 2, 0, "", 0.5, True, None, "")) | {"shown": [1, 3, 0, 2]}
    write_table(pl.DataFrame([four, row(ANSWERS[1])], schema=ROLLOUTS), kept, ROLLOUTS)
    lines = printed(capsys, "--row", "0").splitlines()
    assert [line.split() for line in lines[5:9]] == [
        ["2", "->", "3", *titles[1].split()],
        ["4", "->", "4", *titles[3].split()],
        ["1", "->", "2", *titles[0].split()],
        ["3", "->", "1", "*", *titles[2].split()],
    ]
    assert "Title" not in printed(capsys, "--row", "1"), "three were shown of a slate of four: which ones is not known"


def test_what_is_chosen_and_in_which_order(kept, capsys):
    assert rows(capsys) == [0, 1, 2]
    assert rows(capsys, "--best") == [0, 2, 1] and rows(capsys, "--worst") == [1, 2, 0]
    assert rows(capsys, "--step", "3") == [2] and rows(capsys, "--slate", "12") == [0, 1]
    assert rows(capsys, "--fault", "duplicate") == [1] and rows(capsys, "--fault", "valid") == [0, 2]
    assert rows(capsys, "--worst", "--fault", "valid", "--limit", "1") == [2]
    assert "2 more: --limit" in printed(capsys, "--full", "--best")


def test_what_is_not_there_is_said(kept, capsys):
    words = r"no such row: there are 3 answers of steps 1 to 3, slates 12 to 40 \(valid: 2, duplicate: 1\)"
    with pytest.raises(SystemExit, match=words):
        rollouts.main(["--step", "2"])
    with pytest.raises(SystemExit) as caught:
        rollouts.main(["--best", "--worst"])
    assert caught.value.code == 2
    write_table(pl.DataFrame(schema=ROLLOUTS), kept, ROLLOUTS, may_be_empty=True)
    with pytest.raises(SystemExit, match=r"set rl\.keep_rollouts, 0.1 say, and run: gr2 run rl"):
        rollouts.main([])
    kept.unlink()
    with pytest.raises(SystemExit, match="gr2 run rl"):
        rollouts.main([])


def test_it_imports_no_torch():
    import subprocess
    import sys

    code = "import sys, stages.tools.rollouts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
