"""Files as other programs leave them: read as they are meant, or refused with file, row or column, and remedy."""

import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.ingest.build.pairs import read_pairs
from stages.ingest.build.text import title_and_year
from stages.ingest.params import IngestParams
from stages.ingest.readers.raw import PAGE_SOURCE
from stages.ingest.sources.source import read_source
from stages.shared.core.errors import StageError
from tests.support.raw_reading import Read, read, write

ITEMS = "item,title,kinds\na,A,X\nb,B,Y\n"
SECOND = 1_500_000_000


def read_table(folder: Path, interactions: str, items: str = "songs.csv", **keys: str) -> Read:
    return read(folder, "table", table={"interactions": interactions, "items": items, **keys})


def categories(folder: Path, items: str, **keys: str) -> list[list[str]]:
    return [row[4] for row in read_table(folder, "plays.csv", items, categories="kinds", **keys).items]


def plays(*rows: object) -> str:
    return "user,item,timestamp\n" + "".join(f"u,{item},{time}\n" for item, time in rows)


@pytest.mark.parametrize(
    ("unit", "times"),
    [
        ("s", ["1500000000.25", "1500000000.5", "1500000000.75"]),
        ("ms", [SECOND * 1000 + 1, SECOND * 1000 + 2, SECOND * 1000 + 3]),
        ("us", [SECOND * 10**6 + 1, SECOND * 10**6 + 2, SECOND * 10**6 + 3]),
        ("ns", [SECOND * 10**9 + 1, SECOND * 10**9 + 2, SECOND * 10**9 + 3]),
    ],
)
def test_order_within_a_second(tmp_path: Path, unit: str, times: list[object]) -> None:
    """Times are kept in whole seconds, and order a user's items to the nanosecond."""
    rows = [("c", times[2]), ("a", times[0]), ("b", times[1])]
    folder = write(tmp_path / "raw", plays__csv=plays(*rows), songs__csv="item,title\na,A\nb,B\nc,C\n")
    table = {"interactions": "plays.csv", "items": "songs.csv", "time_unit": unit}
    log = read_source(IngestParams(source="table", folder=str(folder), table=table), tmp_path)
    codes = read_pairs(log, pl.Series(["a", "b", "c"]), 0.0).table
    assert codes["item"].to_list() == [0, 1, 2] and set(codes["timestamp"]) == {SECOND}


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_seconds_declared_in_a_finer_unit_are_bad_rows(tmp_path: Path, unit: str) -> None:
    folder = write(tmp_path / "raw", plays__csv=plays(("a", SECOND), ("b", 100)), songs__csv=ITEMS)
    got = read_table(folder, "plays.csv", time_unit=unit)
    assert [(row, reason.split(" since")[0][:19]) for _, row, reason, _ in got.rejected] == [(2, "timestamp is not in")]
    assert len(got.interactions) == 1, "a small number may be a time since the start of a recording"


def test_dates_of_parquet_are_no_numbers_in_a_unit(tmp_path: Path) -> None:
    folder = write(tmp_path / "raw", songs__csv=ITEMS)
    times = pl.Series(["1970-01-10T00:00:00.5", "9999-01-01T00:00:00"]).str.to_datetime(time_unit="us")
    pl.DataFrame({"user": ["u", "u"], "item": ["a", "b"], "timestamp": times}).write_parquet(folder / "plays.parquet")
    assert [row[2] for row in read_table(folder, "plays.parquet", time_unit="ms").interactions] == [777_600]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_movielens_files_in_either_encoding(tmp_path: Path, encoding: str) -> None:
    movies = "1::Les Misérables (1995)::Drama\n".encode(encoding)
    folder = write(tmp_path / "raw", ratings__dat="1::1::5::100\n", movies__dat=movies)
    assert read(folder, "movielens-1m").items[0][1] == "Les Misérables (1995)"


def test_numbers_of_json_as_ids(tmp_path: Path) -> None:
    """Exact beyond 64 bits; 7 and 7.0 are one number."""
    big = [2**64 + 1, 2**64 + 2]
    lines = [{"user": user, "item": item, "timestamp": 1} for user, item in ((big[0], 7), (big[1], 7.0))]
    folder = write(tmp_path / "raw", plays__jsonl="\n".join(map(json.dumps, lines)), songs__csv="item,title\n7,A\n")
    assert [row[:2] for row in read_table(folder, "plays.jsonl").interactions] == [(str(user), "7") for user in big]


def test_a_rating_that_is_an_object_is_no_missing_rating(tmp_path: Path) -> None:
    line = json.dumps({"user": "u", "item": "a", "timestamp": 1, "stars": {"$numberInt": "3"}})
    folder = write(tmp_path / "raw", plays__jsonl=line, songs__csv=ITEMS)
    assert [reason for _, _, reason, _ in read_table(folder, "plays.jsonl", rating="stars").rejected] == ["rating is not a number"]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_categories_that_are_objects_give_their_names(tmp_path: Path, ending: str) -> None:
    folder = write(tmp_path / "raw", plays__csv=plays(("a", 1)))
    for key in ("description", "name"):
        table = pl.DataFrame({"item": ["a"], "title": ["A"], "kinds": [[{"id": 1, key: "Home"}, {"id": 2, key: "Light"}]]})
        table.write_ndjson(folder / "songs.jsonl") if ending == "jsonl" else table.write_parquet(folder / "songs.parquet")
        assert categories(folder, f"songs.{ending}") == [["Home", "Light"]]


def test_categories_that_are_objects_without_a_name_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "raw", plays__csv=plays(("a", 1)))
    table = pl.DataFrame({"item": ["a"], "title": ["A"], "kinds": [[{"id": 1}]]})
    table.write_parquet(folder / "songs.parquet")
    with pytest.raises(StageError, match=r"songs\.parquet: the column 'kinds' holds lists of Struct.*, without a text named name or"):
        categories(folder, "songs.parquet")
    table.write_ndjson(folder / "songs.jsonl")
    got = read_table(folder, "plays.csv", "songs.jsonl", categories="kinds")
    assert got.rejected[0][:2] == ("songs.jsonl", 1) and got.rejected[0][2].startswith("a list holds objects without a field name or")


@pytest.mark.parametrize("text", ["['Home', 'Light, red']", '["Home", "Light, red"]'])
def test_lists_of_python_and_json_in_a_csv_file(tmp_path: Path, text: str) -> None:
    quoted = text.replace('"', '""')
    folder = write(tmp_path / "raw", plays__csv=plays(("a", 1)), songs__csv=f'item,title,kinds\na,A,"{quoted}"\nb,B,"X, Y"\n')
    assert categories(folder, "songs.csv", category_separator=",") == [["Home", "Light, red"], ["X", "Y"]]
    lines = json.dumps({"item": "a", "title": "A", "kinds": text})
    assert categories(write(folder, songs__jsonl=lines), "songs.jsonl", category_separator=",") == [["Home", "Light, red"]]


@pytest.mark.parametrize(("year", "expected"), [("1999.0", 1999), ("1999.00", 1999), ("1999", 1999), ("1999.5", None), ("", None)])
def test_years_as_floats(year: str, expected: int | None) -> None:
    assert title_and_year("A", year) == ("A", expected)


def test_a_column_that_stands_twice(tmp_path: Path) -> None:
    folder = write(tmp_path / "raw", plays__csv="user,item,item,timestamp\nu,a,b,1\n", songs__csv=ITEMS)
    with pytest.raises(StageError, match=r"plays\.csv, row 1: the column 'item' stands twice; rename"):
        read_table(folder, "plays.csv")
    columns = [pa.array(["u"]), pa.array(["a"]), pa.array(["b"]), pa.array([1])]
    pq.write_table(pa.Table.from_arrays(columns, ["user", "item", "item", "timestamp"]), folder / "plays.parquet")
    with pytest.raises(StageError, match=r"plays\.parquet: the column 'item' stands twice; rename"):
        read_table(folder, "plays.parquet")


def test_parquet_text_that_is_not_utf8(tmp_path: Path) -> None:
    folder = write(tmp_path / "raw", plays__csv=plays(("a", 1)))
    titles = pa.Array.from_buffers(pa.string(), 1, pa.array([b"Caf\xe9"]).buffers())
    pq.write_table(pa.table({"item": pa.array(["a"]), "title": titles}), folder / "songs.parquet")
    with pytest.raises(StageError, match=r"songs\.parquet: the column 'title' holds text that is not UTF-8 .*; convert it"):
        read_table(folder, "plays.csv", "songs.parquet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"user": "u", "item": "a", "timestamp": 1}]', "row 1: a JSON array; no line of the file is a JSON object"),
        ("[\n{},\n]", "row 1: a JSON array"),
        ("\n{'user': 'u', 'item': 'a', 'timestamp': 1}\n", "row 2: a Python literal, not valid JSON; no line of the file is a JSON object"),
    ],
)
def test_a_file_without_any_json_object(tmp_path: Path, text: str, message: str) -> None:
    folder = write(tmp_path / "raw", plays__jsonl=text.replace("{},", "1,"), songs__csv=ITEMS)
    with pytest.raises(StageError, match=rf"plays\.jsonl, {message}"):
        read_table(folder, "plays.jsonl")


@pytest.mark.parametrize("name", ["plays.csv", "plays.parquet", "plays.jsonl"])
def test_a_folder_in_place_of_a_file(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "raw", songs__csv=ITEMS)
    (folder / name).mkdir()
    with pytest.raises(StageError, match=rf"{name}: a folder, not a file; put its parts together"):
        read_table(folder, name)


def test_byte_order_marks_twice_and_within_a_file(tmp_path: Path) -> None:
    mark = "\ufeff"
    text = mark + mark + plays(("a", 1)) + mark + "u,b,2\n"
    folder = write(tmp_path / "raw", plays__csv=text, songs__csv=ITEMS)
    assert [row[:2] for row in read_table(folder, "plays.csv").interactions] == [("u", "a"), ("u", "b")]
    lines = [json.dumps({"user": "u", "item": item, "timestamp": 1}) for item in "ab"]
    folder = write(folder, plays__jsonl=f"{lines[0]}\n{mark}{lines[1]}\n")
    assert [row[1] for row in read_table(folder, "plays.jsonl").interactions] == ["a", "b"]


def test_a_header_with_another_separator_is_shown_as_it_stands(tmp_path: Path) -> None:
    inter = "user_id:token,item_id:token,timestamp:float\n1,a,2\n"
    folder = write(tmp_path / "raw", x__inter=inter, x__item="item_id:token\ttitle:token_seq\na\tA\n")
    with pytest.raises(
        StageError, match=r"found: user_id:token,item_id:token,timestamp:float\); it has one column, so the separator is another"
    ):
        read(folder)


def test_page_source_is_no_title_in_amazon_2018(tmp_path: Path) -> None:
    review = json.dumps({"reviewerID": "u", "asin": "B1", "unixReviewTime": 1, "overall": 5.0})
    metas = [{"asin": "B1", "title": "Lamp"}, {"asin": "B2", "title": "var a = (new Date()).getTime(); Lamp"}]
    folder = write(tmp_path / "raw", Lamps_5__json=review, meta_Lamps__json="\n".join(map(json.dumps, metas)))
    got = read(folder, "amazon-2018", category="Lamps")
    assert [row[0] for row in got.items] == ["B1"] and [reason for *_, reason, _ in got.rejected] == [PAGE_SOURCE]
