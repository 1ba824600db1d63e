import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

from stages.ingest.ingest import ingest
from stages.ingest.params import IngestParams
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json, stage_outputs
from stages.shared.core.params import load_params, validate_section
from stages.shared.core.schemas import INTERACTIONS, ITEMS, USERS, read_table
from tests.support.raw_log import raw_log, run

ROOT = Path(__file__).parents[3]
ITEM_HEADER = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
INTER_HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
OUTPUTS = ["card.md", "interactions.parquet", "items.parquet", "metrics.json", "quarantine.parquet", "users.parquet", "world.safetensors"]


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
    assert metrics["by_split"] == {"base": 39, "train": 9, "valid": 6, "test": 36}
    assert metrics["raw"]["rows"] == 90 and metrics["raw"]["name"] == "x.inter"
    assert sorted(path.name for path in out.iterdir()) == OUTPUTS  # and no scratch


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


# Two users with everything, one who comes late, one with low ratings and repeats; a row without an item.
LOG = [(user, f"i{step}", 10 * step + place, 5.0) for place, user in enumerate("ab") for step in range(12)]
LOG += [("late", f"i{step}", 10 * step + 5, 4.0) for step in range(3, 12)]
LOG += [("low", f"i{step}", 10 * step + 6, 1.0) for step in range(9)] + [("low", "i0", 3, 5.0), ("a", "lost", 7, 5.0)]
BASE = {"min_interactions": 3, "min_base": 2, "valid_positions": 1, "test_positions": 2, "max_bad_share": 0.05}
READING = {"source", "folder", "category", "table", "world"}  # tested with the sources
FORGETTING = {"forget", "forget_salt"}  # tested in test_forget.py
ITEMS_OF_LOG = [*(f"i{step}" for step in range(12)), "never"]


@pytest.mark.parametrize(
    ("key", "value", "others"),
    [
        ("min_rating", 2.0, {}),
        ("min_interactions", 10, {}),
        ("min_item_interactions", 4, {}),
        ("max_history", 6, {}),
        ("keep_items", "interacted", {}),
        ("split", "leave_one_out", {}),
        ("split", "global_time", {}),
        ("base_share", 0.7, {}),
        ("base_share", 0.7, {"split": "leave_one_out"}),
        ("base_share", 0.6, {"split": "global_time"}),
        ("min_base", 5, {}),
        ("min_base", 7, {"split": "leave_one_out"}),
        ("min_base", 4, {"split": "global_time"}),
        ("valid_positions", 2, {}),
        ("test_positions", 3, {}),
        ("valid_share", 0.2, {"split": "global_time"}),
        ("test_share", 0.2, {"split": "global_time"}),
    ],
)
def test_every_key_does_something(tmp_path, key, value, others):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir(), other.mkdir()
    raw = raw_log(tmp_path / "raw", LOG, ITEMS_OF_LOG)
    before, after = run(one, raw, **{**BASE, **others}), run(other, raw, **{**BASE, **others, key: value})
    assert any((before / name).read_bytes() != (after / name).read_bytes() for name in ("interactions.parquet", "items.parquet"))


def test_no_key_is_forgotten_above():
    marks = test_every_key_does_something.pytestmark[0].args[1]
    assert {key for key, *_ in marks} | READING | FORGETTING | {"max_bad_share", "missing_items"} == set(IngestParams.model_fields)


def test_the_share_of_bad_rows_does_something(tmp_path):
    raw = raw_log(tmp_path / "raw", LOG, ITEMS_OF_LOG)
    run(tmp_path, raw, **BASE)
    with pytest.raises(StageError, match="1 of 44 rows"):
        run(tmp_path, raw, **{**BASE, "max_bad_share": 0.02})


def test_the_profile_names_every_key_with_its_default():
    for path in (ROOT / "params.yaml", ROOT / "infra/profiles/default.yaml"):
        section = yaml.safe_load(path.read_text())["ingest"]
        assert load_params("ingest", IngestParams, path) == IngestParams()
        assert section == IngestParams().model_dump()


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"min_interaction": 5}, "unknown key; did you mean 'min_interactions'?"),
        ({"min_interactions": "20"}, "ingest.min_interactions"),
        ({"source": "movielens"}, "ingest.source"),
        ({"source": "folder"}, "source: folder needs folder"),
        ({"source": "amazon-2014"}, "source: amazon-2014 needs category"),
        ({"source": "table", "folder": "raw"}, "needs table.interactions"),
        ({"base_share": 1.0}, "ingest.base_share"),
        ({"split": "global_time", "base_share": 0.8}, "leave no share for train"),
        ({"table": {"usr": "x"}}, "ingest.table.usr: unknown key"),
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
    assert sorted(before) == OUTPUTS

    assert subprocess.run(command, cwd=tmp_path, env=environment).returncode == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "data" / "ingest").iterdir()} == before

    with (raw / "x.item").open("ab") as items:
        items.write(b"50\tCaf\xe9\t1995\tDrama\n")
    failed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-3].startswith("ingest: x.item: 1 of 33 rows") and "Traceback" not in failed.stderr
    assert "row 34" in failed.stderr and "not UTF-8" in failed.stderr and "ingest.max_bad_share" in failed.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "data" / "ingest").iterdir()} == before
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["ingest"]
    assert (tmp_path / ".gr2/quarantine/ingest.parquet").exists()
