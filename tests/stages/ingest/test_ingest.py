import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

from stages.ingest.ingest import ingest, interaction_tables, item_table, sorted_ids
from stages.ingest.movielens import RawInteraction, RawItem
from stages.ingest.params import IngestParams
from stages.shared.errors import StageError
from stages.shared.outputs import read_json, stage_outputs
from stages.shared.params import validate_section
from stages.shared.tables import INTERACTIONS, ITEMS, USERS, read_table

ROOT = Path(__file__).parents[3]
ITEM_HEADER = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
INTER_HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"


def recbole_folder(folder: Path, users: int = 3, each: int = 30) -> Path:
    folder.mkdir()
    (folder / "x.item").write_text(
        ITEM_HEADER + "".join(f"{item}\tFilm {item}, The\t19{item:02}\tDrama unknown\n" for item in range(10, 42)), encoding="utf-8"
    )
    rows = [f"{user}\t{item}\t5\t{1000 * user + item}\n" for user in range(users) for item in range(10, 10 + each)]
    (folder / "x.inter").write_text(INTER_HEADER + "".join(rows[::-1]), encoding="utf-8")
    return folder


def run_in(tmp_path: Path, monkeypatch, folder: Path, **more) -> Path:
    monkeypatch.chdir(tmp_path)
    params = IngestParams(source="folder", folder=str(folder), **more)
    with stage_outputs("ingest") as outputs:
        ingest(params, outputs)
    return tmp_path / "data" / "ingest"


def test_a_folder_becomes_three_tables(tmp_path, monkeypatch):
    out = run_in(tmp_path, monkeypatch, recbole_folder(tmp_path / "raw"), base_share=0.45, valid_positions=2, test_positions=12)
    items, users = read_table(out / "items.parquet", ITEMS), read_table(out / "users.parquet", USERS)
    interactions = read_table(out / "interactions.parquet", INTERACTIONS)
    assert items.row(0, named=True) == {
        "item": 0,
        "source_id": "10",
        "title": "The Film 10",
        "brand": "",
        "categories": ["Drama"],
        "year": 1910,
        "text": "The Film 10 (1910). Genres: Drama.",
    }
    assert items.height == 32 and users["source_id"].to_list() == ["0", "1", "2"]
    assert interactions.filter(pl.col("user") == 1)["item"].to_list() == list(range(30))
    metrics = read_json(out / "metrics.json")
    assert metrics["items_without_interactions"] == 2
    assert metrics["by_split"] == {"base": 39, "slates": 9, "valid": 6, "test": 36}
    assert metrics["raw"]["rows"] == 90 and metrics["raw"]["name"] == "x.inter"


def test_both_forms_of_movielens_give_the_same_tables(tmp_path, monkeypatch):
    recbole = recbole_folder(tmp_path / "recbole")
    grouplens = tmp_path / "grouplens"
    grouplens.mkdir()
    flags = "|".join("1" if place == 8 else "0" for place in range(19))
    lines = [f"{item}|Film {item}, The (19{item:02})|01-Jan-19{item:02}||url|{flags}\n" for item in range(10, 42)]
    (grouplens / "u.item").write_text("".join(lines), encoding="latin-1")
    (grouplens / "u.data").write_text((recbole / "x.inter").read_text().removeprefix(INTER_HEADER))

    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir(), other.mkdir()
    first, second = run_in(one, monkeypatch, recbole), run_in(other, monkeypatch, grouplens)
    for name in ("items.parquet", "users.parquet", "interactions.parquet"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_duplicates_keep_the_earliest_and_short_users_go():
    items = item_table([RawItem(name, f"Film {name}", "", "", [], 1) for name in "abc"])
    raw = [
        RawInteraction("u", "a", 9, 1),
        RawInteraction("u", "b", 5, 2),
        RawInteraction("u", "a", 3, 3),
        RawInteraction("u", "b", 5, 4),
        RawInteraction("short", "c", 1, 5),
    ]
    interactions, users, dropped = interaction_tables(raw, items, IngestParams(min_interactions=2))
    assert interactions.select("item", "timestamp").rows() == [(0, 3), (1, 5)]
    assert users.rows() == [(0, "u")]
    assert dropped == {"duplicates": 2, "users": 1, "interactions_of_dropped_users": 1}


def test_equal_times_keep_the_order_of_the_file():
    items = item_table([RawItem(name, f"Film {name}", "", "", [], 1) for name in "abcd"])
    raw = [RawInteraction("u", item, 7, row) for row, item in enumerate("cadb")]
    interactions, _, _ = interaction_tables(raw, items, IngestParams(min_interactions=1))
    assert interactions["item"].to_list() == [2, 0, 3, 1]


def test_ids_sort_by_number_only_if_all_are_numbers():
    assert sorted_ids(["10", "9", "1"]) == ["1", "9", "10"]
    assert sorted_ids(["10", "9", "B1"]) == ["10", "9", "B1"]


@pytest.mark.parametrize(
    ("items", "interactions", "said"),
    [
        ([RawItem("a", "A", "", "", [], 2), RawItem("a", "B", "", "", [], 5)], [], "'a' stands twice, in rows 2 and 5"),
        ([RawItem("a", " \u200b", "", "", [], 2)], [], "'a', row 2: no title is left"),
        ([RawItem("a", "A", "", "", [], 2)], [RawInteraction("u", "zz", 1, 4)], "row 4: item 'zz' is not in the item file"),
        ([RawItem("a", "A", "", "", [], 2)], [RawInteraction("u", "a", 1, 4)], "no user has 20 interactions"),
    ],
)
def test_bad_rows_are_named(items, interactions, said):
    with pytest.raises(StageError, match=said):
        interaction_tables(interactions, item_table(items), IngestParams())


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"min_interaction": 5}, "unknown key; did you mean 'min_interactions'?"),
        ({"min_interactions": "20"}, "ingest.min_interactions"),
        ({"source": "movielens"}, "ingest.source"),
        ({"folder": "raw"}, "set folder together with source: folder"),
        ({"source": "folder"}, "set folder together with source: folder"),
        ({"base_share": 1.0}, "ingest.base_share"),
    ],
)
def test_bad_parameters_are_named(section, said):
    with pytest.raises(StageError) as error:
        validate_section("ingest", IngestParams, section, "params.yaml")
    assert said in str(error.value)


def test_a_failed_run_leaves_earlier_outputs_alone(tmp_path):
    """The stage as a process: exit code, one message, no traceback, old bytes still there."""
    raw = recbole_folder(tmp_path / "raw")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"ingest": {"source": "folder", "folder": "raw"}}))
    command = [sys.executable, "-m", "stages.ingest"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    assert subprocess.run(command, cwd=tmp_path, env=environment).returncode == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "data" / "ingest").iterdir()}
    assert sorted(before) == ["interactions.parquet", "items.parquet", "metrics.json", "users.parquet"]

    assert subprocess.run(command, cwd=tmp_path, env=environment).returncode == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "data" / "ingest").iterdir()} == before

    (raw / "x.item").write_bytes(ITEM_HEADER.encode() + b"10\tCaf\xe9\t1995\tDrama\n")
    failed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.startswith("ingest: x.item, row 2: byte 0xe9") and "Traceback" not in failed.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "data" / "ingest").iterdir()} == before
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["ingest"]
