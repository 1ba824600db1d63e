import json
import os
from pathlib import Path

import pytest

from stages.ingest.ingest import ingest
from stages.ingest.params import IngestParams
from stages.ingest.readers import chunks
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import stage_outputs
from tests.support.raw_reading import read, write

ITEMS = (
    json.dumps({"item_id": 1, "asin": "B1", "title": "One", "brand": None, "categories": [["A", "B"], ["C"]]})
    + "\n"
    + json.dumps({"item_id": 2, "asin": "B2", "title": "Two", "brand": "Acme", "categories": []})
    + "\n"
)


def test_a_row_says_line_and_place(tmp_path):
    got = read(write(tmp_path / "raw", sequences__txt="1 1 2 1\r\n\n22\t2  1 \n", items__jsonl=ITEMS))
    assert got.interactions == [
        ("1", "1", 0, None, 1_000_001),
        ("1", "2", 1, None, 1_000_002),
        ("1", "1", 2, None, 1_000_003),
        ("22", "2", 0, None, 3_000_001),
        ("22", "1", 1, None, 3_000_002),
    ]
    assert got.items == [("1", "One", "", "", ["A", "B"], 1), ("2", "Two", "", "Acme", [], 2)]
    assert got.log.time == "order" and got.log.category_word == "Categories" and got.log.interaction_rows == 5


@pytest.mark.parametrize("size", [3, 7, 2**20])
def test_bad_lines_and_bad_items(tmp_path, monkeypatch, size):
    monkeypatch.setattr(chunks, "BLOCK", size)
    got = read(write(tmp_path / "raw", sequences__txt="1 1 x 2\n2\nu 1\n1 2\n0 1\n3 0\n4 1\n", items__jsonl=ITEMS))
    assert sorted(got.rejected) == [
        ("sequences.txt", 1_000_002, "item id is not a whole number from 1", "1 1 x 2"),
        ("sequences.txt", 2_000_000, "no items behind the user", "2"),
        ("sequences.txt", 3_000_000, "user id is not a whole number from 1", "u 1"),
        ("sequences.txt", 4_000_000, "user stands twice", "1 2"),
        ("sequences.txt", 5_000_000, "user id is not a whole number from 1", "0 1"),
        ("sequences.txt", 6_000_001, "item id is not a whole number from 1", "3 0"),
    ]
    assert [(row[0], row[1], row[2]) for row in got.interactions] == [("1", "1", 0), ("1", "2", 2), ("4", "1", 0)]


def test_ids_from_zero_are_told(tmp_path, capsys, monkeypatch):
    """Item 0 goes missing, and user 0 with all of theirs: a hundredth of the rows or less passes, and is told."""
    monkeypatch.chdir(tmp_path)
    lines = [f"{user} {' '.join(str((user + step) % 400) for step in range(200))}" for user in range(1, 250)]
    items = "\n".join(json.dumps({"item_id": item, "title": f"T{item}"}) for item in range(400))
    folder = write(tmp_path / "raw", sequences__txt="\n".join(lines), items__jsonl=items)
    with stage_outputs("ingest") as outputs:
        ingest(IngestParams(source="folder", folder=str(folder)), outputs)
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("sequences.txt: ") and " x item id is not a whole number from 1; the first is row " in line


def test_files_are_needed_both(tmp_path):
    with pytest.raises(StageError, match=r"items\.jsonl: no such file"):
        read(write(tmp_path / "raw", sequences__txt="1 1\n"))
    with pytest.raises(StageError, match=r"sequences\.txt: no rows"):
        read(write(tmp_path / "raw", sequences__txt="", items__jsonl=ITEMS))


@pytest.mark.skipif("GR2_BEAUTY" not in os.environ, reason="GR2_BEAUTY does not name a folder with Amazon Beauty as a plain pair")
def test_the_real_pair():
    got = read(Path(os.environ["GR2_BEAUTY"]))
    assert (len(got.items), len({row[0] for row in got.interactions}), len(got.interactions)) == (12_101, 22_363, 198_502)
    assert got.rejected == [] and {row[1] for row in got.interactions} == {item[0] for item in got.items}
    with (Path(os.environ["GR2_BEAUTY"]) / "sequences.txt").open() as file:
        by_hand = [(user, item, place) for user, *items in map(str.split, file) for place, item in enumerate(items)]
    assert [row[:3] for row in got.interactions] == by_hand
