"""Forgotten users: ingest of a log with them in `ingest.forget` is ingest of a log in which they never were."""

import gzip
import hashlib
import json
import random
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.ingest.ingest import ingest
from stages.ingest.params import IngestParams, TableParams, WorldParams
from stages.ingest.readers.forget import HIDDEN, digest
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json, stage_outputs
from stages.shared.core.params import validate_section
from stages.shared.core.schemas import USERS, read_table
from stages.tools.data_subject import user_data
from tests.support.raw_reading import write

SMALL = {"min_interactions": 6, "min_item_interactions": 2, "min_base": 2, "valid_positions": 1, "test_positions": 2, "max_bad_share": 0.3}
GONE = "7"
RANDOM = random.Random(5)
TAKEN = [(str(user), RANDOM.sample(range(1, 30), 14)) for user in range(1, 12)]
LOG = [(user, str(item), str(1000 + 37 * place + int(user))) for user, items in TAKEN for place, item in enumerate(items)]
RANDOM.shuffle(LOG)


def sha(text: str) -> str:
    """By hand, as a person would with sha256sum."""
    return hashlib.sha256(text.encode()).hexdigest()


def run(place: Path, monkeypatch: pytest.MonkeyPatch, raw: Path, **params) -> Path:
    place.mkdir()
    monkeypatch.chdir(place)
    with stage_outputs("ingest") as outputs:
        ingest(IngestParams(**{**SMALL, "source": "folder", "folder": str(raw), **params}), outputs)
    return place / "data" / "ingest"


def u_data(rows) -> str:
    return "".join("\n" if row is None else "\t".join((row[0], row[1], "5", row[2])) + "\n" for row in rows)


def u_item() -> str:
    return "".join(f"{item}|Film {item} (1990)|01-Jan-1990||url|{'|'.join('010' + 16 * '0')}\n" for item in range(1, 30))


def recbole(rows) -> dict[str, str]:
    inter = "".join("\n" if row is None else f"{row[0]}\t{row[1]}\t5\t{row[2]}\n" for row in rows)
    items = "".join(f"{item}\tFilm {item}\t1990\tDrama\n" for item in range(1, 30))
    return {
        "x__inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + inter,
        "x__item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n" + items,
    }


def amazon(rows) -> dict[str, str]:
    def line(row) -> str:
        return json.dumps({"user_id": row[0], "parent_asin": row[1], "timestamp": 1000 * int(row[2]), "rating": 5.0})

    reviews = "".join("\n" if row is None else line(row) + "\n" for row in rows)
    metas = "".join(json.dumps({"parent_asin": str(item), "title": f"Film {item}"}) + "\n" for item in range(1, 30))
    return {"Toys__jsonl": reviews, "meta_Toys__jsonl": metas}


def pair(rows) -> dict[str, str]:
    by_user: dict[str, list[str]] = {}
    for user, item, _ in sorted((row for row in rows if row), key=lambda row: int(row[2])):
        by_user.setdefault(user, []).append(item)
    lines = {user: f"{user} {' '.join(items)}\n" for user, items in by_user.items()}
    everyone = [lines.get(user, "\n") for user, _ in TAKEN]
    items = "".join(json.dumps({"item_id": item, "title": f"Film {item}"}) + "\n" for item in range(1, 30))
    return {"sequences__txt": "".join(everyone), "items__jsonl": items}


def csv(rows) -> dict[str, str]:
    log = "".join("\n" if row is None else f'"{row[0]}",{row[1]},{row[2]}\n' for row in rows)
    return {"log__csv": "user,item,timestamp\n" + log, "items__csv": "item,title\n" + "".join(f"{i},Film {i}\n" for i in range(1, 30))}


FILES = TableParams(interactions="log.csv", items="items.csv")
TABLE = {"source": "table", "table": FILES}
FORMS = {
    "u.data": (lambda rows: {"u__data": u_data(rows), "u__item": u_item()}, {}),
    "recbole": (recbole, {}),
    "amazon-2023": (amazon, {}),
    "pair": (pair, {}),
    "csv": (csv, TABLE),
    "csv in the order of the file": (csv, {"source": "table", "table": FILES.model_copy(update={"timestamp": ""})}),
}


@pytest.mark.parametrize("form", FORMS)
def test_it_is_as_if_they_had_never_been(tmp_path, monkeypatch, form):
    make, params = FORMS[form]
    everyone = write(tmp_path / "everyone", **make(LOG))
    without = write(tmp_path / "without", **make([None if row[0] == GONE else row for row in LOG]))  # blank lines: row numbers stay
    forgotten = run(tmp_path / "a", monkeypatch, everyone, forget=[sha(GONE)], **params)
    never = run(tmp_path / "b", monkeypatch, without, **params)
    for name in ("interactions.parquet", "users.parquet", "items.parquet", "quarantine.parquet", "world.safetensors"):
        assert (forgotten / name).read_bytes() == (never / name).read_bytes(), name
    ours, theirs = read_json(forgotten / "metrics.json"), read_json(never / "metrics.json")
    counts = {key: ours.pop(key) for key in [key for key in ours if key.startswith("forgotten")]}
    assert counts == {"forgotten_users": 1, "forgotten_rows": 14, "forgotten_digests_without_user": 0}
    ours["raw"] = {key: value for key, value in ours["raw"].items() if key not in ("bytes", "sha256", "files")}
    theirs["raw"] = {key: value for key, value in theirs["raw"].items() if key not in ("bytes", "sha256", "files")}
    assert ours == theirs
    assert "14 of 1 users who are forgotten" in (forgotten / "card.md").read_text()
    with_them = run(tmp_path / "c", monkeypatch, everyone, **params)
    assert GONE in read_table(with_them / "users.parquet", USERS)["source_id"].to_list()
    assert not any(key.startswith("forgotten") for key in read_json(with_them / "metrics.json"))


@settings(max_examples=8, deadline=None)
@given(st.sets(st.sampled_from([user for user, _ in TAKEN]), max_size=6), st.sampled_from(["", "pepper"]))
def test_any_users_and_any_salt(tmp_path_factory, gone, salt):
    tmp_path = tmp_path_factory.mktemp("any")
    everyone = write(tmp_path / "everyone", **recbole(LOG))
    without = write(tmp_path / "without", **recbole([row for row in LOG if row[0] not in gone]))
    with pytest.MonkeyPatch.context() as monkeypatch:
        forgotten = run(tmp_path / "a", monkeypatch, everyone, forget=[sha(salt + user) for user in gone], forget_salt=salt)
        never = run(tmp_path / "b", monkeypatch, without)
    for name in ("interactions.parquet", "users.parquet", "items.parquet", "quarantine.parquet"):
        assert (forgotten / name).read_bytes() == (never / name).read_bytes(), name


def test_rejected_rows_of_theirs_are_not_kept(tmp_path, monkeypatch):
    """Rows that cannot be used: without a number, of an item nobody knows, too short to tell whose they are; the last with spaces."""
    bad = [(GONE, "1", "yesterday"), ("3", "2", "yesterday"), (GONE, "unknown", "5"), ("3", "unknown", "6"), (f" {GONE} ", "3", "x")]
    raw = write(tmp_path / "raw", u__data=u_data([*LOG, *bad]) + f"secret-of-{GONE}\t1\n", u__item=u_item())
    out = run(tmp_path / "a", monkeypatch, raw, forget=[sha(GONE)])
    kept = pl.read_parquet(out / "quarantine.parquet").sort("row")
    assert kept.select("row", "text").rows() == [
        (len(LOG) + 2, "3\t2\t5\tyesterday"),
        (len(LOG) + 4, "3\tunknown\t6"),
        (len(LOG) + 6, HIDDEN),
    ]
    metrics = read_json(out / "metrics.json")
    assert metrics["forgotten_rows"] == 14 + 3 and metrics["raw"]["rows"] == len(LOG) - 14 + 3
    assert sum(metrics["rejected"]["u.data"].values()) == 3
    shown = pl.read_parquet(run(tmp_path / "b", monkeypatch, raw) / "quarantine.parquet")["text"].to_list()
    assert f"secret-of-{GONE}\t1" in shown  # where nobody is forgotten every row is shown


def test_a_made_up_world_forgets_too(tmp_path, monkeypatch):
    section = {"source": "synthetic", "world": WorldParams(users=30, items=80, shortest=10, longest=20), "min_item_interactions": 0}
    users = {user: run(tmp_path / user, monkeypatch, Path(), forget=[sha(user)], **section) for user in ("4", "29")}
    for user, out in users.items():
        assert read_table(out / "users.parquet", USERS)["source_id"].to_list() == [str(other) for other in range(30) if str(other) != user]


def test_a_digest_that_matches_nobody_is_counted_and_a_plain_id_is_refused(tmp_path, monkeypatch):
    raw = write(tmp_path / "raw", **recbole(LOG))
    out = run(tmp_path / "a", monkeypatch, raw, forget=[sha("nobody"), sha(GONE)])
    metrics = read_json(out / "metrics.json")
    assert (metrics["forgotten_users"], metrics["forgotten_digests_without_user"]) == (1, 1)
    with pytest.raises(StageError, match=r"ingest\.forget\.0"):
        validate_section("ingest", IngestParams, {"forget": [GONE]}, "params.yaml")


def test_the_digest_is_that_of_sha256sum():
    assert digest(" 7\n", "") == "7902699be42c8a8e46fbbb4501726517e86b22c56a189f7625a6da49081b2451"
    assert digest("7", "sea") == sha("sea7")


def test_what_is_held_of_a_user(tmp_path, monkeypatch):
    raw = write(tmp_path / "raw", **recbole(LOG))
    out = run(tmp_path / "a", monkeypatch, raw)
    section = {**SMALL, "source": "folder", "folder": str(raw)}
    (tmp_path / "a" / "params.yaml").write_text(json.dumps({"ingest": section}))
    cache = tmp_path / "cache" / "files" / "md5" / "ab"
    cache.mkdir(parents=True)
    for source, name in (("users", "cdef"), ("interactions", "0123")):
        (cache / name).write_bytes((out / f"{source}.parquet").read_bytes())
    (cache / "text").write_bytes(b"PAR1 is how a text may begin, too")
    (cache / "log").write_bytes(gzip.compress(b"x"))
    found = user_data(GONE, [tmp_path / "cache"])
    table = pl.read_parquet(out / "interactions.parquet")
    dense = read_table(out / "users.parquet", USERS).filter(pl.col("source_id") == GONE)["user"].item()
    theirs = table.filter(pl.col("user") == dense)["split"].value_counts()
    assert found["dense"] == dense and found["interactions"] == dict(theirs.rows())
    assert found["raw"]["rows"] == 14 and found["digest"] == sha(GONE) and not found["listed"]
    assert found["tables"] == [str(cache / "cdef")] and found["slates"] == {}
    unknown = user_data("someone else", [tmp_path / "cache"])
    assert (unknown["dense"], unknown["raw"]["rows"], unknown["tables"]) == (None, 0, [])
    (raw / "x.inter").unlink()
    assert "error" in user_data(GONE, [])["raw"]
    with pytest.raises(StageError, match="USER is empty"):
        user_data(" ", [])


def test_a_number_is_one_user_however_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plays = [{"user": user, "item": "a", "timestamp": 5} for user in (7, 7.0, 8)]
    songs = "item,title\na,A\n"
    write(
        tmp_path / "raw",
        plays__jsonl="\n".join(map(json.dumps, plays)),
        songs__csv=songs,
        text__csv="user,item,timestamp\n7.0,a,5\n7,a,6\n",
    )
    for log, asked, stored, rows in (
        ("plays.jsonl", "7.0", "7", 2),
        ("plays.jsonl", "7", "7", 2),
        ("text.csv", "7.0", "7.0", 1),
        ("text.csv", "7", "7", 1),
    ):
        table = {"interactions": log, "items": "songs.csv"}
        (tmp_path / "params.yaml").write_text(json.dumps({"ingest": {"source": "table", "folder": "raw", "table": table}}))
        found = user_data(asked, [])
        assert (found["user"], found["digest"], found["raw"]["rows"]) == (stored, sha(stored), rows)
