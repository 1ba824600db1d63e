"""A log of one's own in each format."""

import datetime as dt
import gzip
import json
import tempfile
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.ingest.readers import chunks, parquet
from stages.shared.core.errors import StageError
from tests.support.raw_reading import read, write

COLUMNS = {
    "user": "who",
    "item": "what",
    "timestamp": "when",
    "rating": "stars",
    "item_id": "id",
    "title": "name",
    "brand": "maker",
    "categories": "kinds",
    "category_separator": ";",
    "year": "year",
    "licence": "CC0.",
}
LOG = pl.DataFrame({"stars": [5.0, None, 1.5], "who": ["u", "v", "u"], "what": [7, 8, 7], "when": [100, 50, 2], "more": ["a,b", 'q"', "c"]})
ITEMS = pl.DataFrame({"id": [7, 8], "name": ['A "b", c', "D"], "kinds": ["X; Y;", None], "maker": ["M", None], "year": [1999, None]})


def stored(folder: Path, log: pl.DataFrame, items: pl.DataFrame, ending: str) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    for name, table in (("log", log), ("items", items)):
        path = folder / f"{name}.{ending}"
        match ending.removesuffix(".gz"):
            case "parquet":
                table.write_parquet(path)
            case "csv":
                table.write_csv(path, check_extension=False)
            case "tsv":
                table.write_csv(path, separator="\t", quote_style="never")
            case "jsonl":
                table.write_ndjson(path, check_extension=False)
        if ending.endswith(".gz"):
            path.write_bytes(gzip.compress(path.read_bytes()))
    return {"interactions": f"log.{ending}", "items": f"items.{ending}"}


@pytest.mark.parametrize(("ending", "first"), [("parquet", 1), ("csv", 2), ("tsv", 2), ("jsonl", 1), ("csv.gz", 2), ("jsonl.gz", 1)])
def test_every_format_gives_the_same_tables(tmp_path, ending, first):
    files = stored(tmp_path / "raw", LOG, ITEMS, ending)
    got = read(tmp_path / "raw", "table", table={**COLUMNS, **files})
    assert got.interactions == [("u", "7", 100, 5.0, first), ("v", "8", 50, None, first + 1), ("u", "7", 2, 1.5, first + 2)]
    assert got.items == [("7", 'A "b", c', "1999", "M", ["X", "Y"], first), ("8", "D", "", "", [], first + 1)]
    assert got.rejected == [] and got.log.licence == "CC0." and got.log.category_word == "Categories" and got.log.time == "seconds"
    assert [file.name for file in got.log.files] == list(files.values())


def test_optional_columns_may_be_left_out(tmp_path):
    log = pl.DataFrame({"user": ["u"], "item": ["i"], "timestamp": [5]})
    for ending in ("parquet", "csv", "jsonl"):
        files = stored(tmp_path / ending, log, pl.DataFrame({"item": ["i"], "title": ["T"]}), ending)
        got = read(tmp_path / ending, "table", table=files)
        assert got.interactions[0][:4] == ("u", "i", 5, None) and got.items[0][:5] == ("i", "T", "", "", [])


def test_the_index_that_pandas_writes_is_no_column(tmp_path):
    folder = write(tmp_path / "raw", log__csv="", items__csv="")
    pd.DataFrame({"user": ["u"], "item": ["i"], "timestamp": [5]}).to_csv(folder / "log.csv")
    pd.DataFrame({"item": ["i"], "title": ["T"]}, index=[9]).to_csv(folder / "items.csv")
    got = read(folder, "table", table={"interactions": "log.csv", "items": "items.csv"})
    assert got.interactions == [("u", "i", 5, None, 2)] and got.items == [("i", "T", "", "", [], 2)]


@pytest.mark.parametrize(("unit", "per_second"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_units_of_time(tmp_path, unit, per_second, ending):
    times = [1_400_000_000 * per_second, 1_400_000_001 * per_second + per_second - 1, -per_second, 2**63 - 1]
    log = pl.DataFrame({"user": ["u"] * 4, "item": ["i"] * 4, "timestamp": times})
    files = stored(tmp_path / "raw", log, pl.DataFrame({"item": ["i"], "title": ["T"]}), ending)
    got = read(tmp_path / "raw", "table", table={**files, "time_unit": unit})
    expected = [1_400_000_000, 1_400_000_001, -1]
    if unit == "ns":  # so many nanoseconds are a time
        expected.append((2**63 - 1) // 10**9)
    assert [row[2] for row in got.interactions] == expected
    names = {"s": "seconds", "ms": "milliseconds", "us": "microseconds"}
    assert [row[2] for row in got.rejected] == ([f"timestamp is not in {names[unit]} since 1970"] if unit in names else [])


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_parquet_may_hold_dates_and_other_types(tmp_path, zone):
    moment = dt.datetime(2014, 5, 1, 12, 0, 0, 999_999, tzinfo=dt.UTC)
    column = (
        pl.Series("timestamp", [moment, None]).dt.convert_time_zone(zone)
        if zone
        else pl.Series("timestamp", [moment, None]).dt.replace_time_zone(None)
    )
    log = pl.DataFrame({"user": pl.Series(["u", "v"], dtype=pl.Categorical), "item": [7.0, 7.0], "timestamp": column})
    items = pl.DataFrame({"item": [7.0, None], "title": ["T", "U"], "kinds": [[["A", "B"], ["C"]], None]})
    files = stored(tmp_path / "raw", log, items, "parquet")
    got = read(tmp_path / "raw", "table", table={**files, "categories": "kinds"})
    assert got.interactions == [("u", "7", 1_398_945_600, None, 1)]
    assert got.items == [("7", "T", "", "", ["A", "B"], 1)]
    assert [row[:3] for row in sorted(got.rejected)] == [
        ("items.parquet", 2, "empty item id"),
        ("log.parquet", 2, "timestamp is not a number"),
    ]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("size", [5, 2**20])
def test_without_times_the_order_of_the_file_counts(tmp_path, monkeypatch, ending, size):
    monkeypatch.setattr(chunks, "BLOCK", size)
    monkeypatch.setattr(parquet, "_BATCH", size)
    log = pl.DataFrame({"user": list("abaacbba"), "item": list("12345678")})
    files = stored(tmp_path / "raw", log, pl.DataFrame({"item": ["1"], "title": ["T"]}), ending)
    got = read(tmp_path / "raw", "table", table={**files, "timestamp": "", "time_unit": "ms"})
    assert [(row[0], row[2]) for row in got.interactions] == [
        ("a", 0), ("b", 0), ("a", 1), ("a", 2), ("c", 0), ("b", 1), ("b", 2), ("a", 3)
    ]  # fmt: skip
    assert got.log.time == "order"


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 2**34), st.none() | st.sampled_from([1.0, 2.5, 5.0])),
        min_size=1,
        max_size=9,
    ),
    size=st.integers(1, 60),
)
def test_csv_as_pandas_reads_it(rows, size):
    frame = pd.DataFrame(rows, columns=["user", "item", "timestamp", "stars"]).sample(frac=1, random_state=0)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "BLOCK", size)
        frame.to_csv(Path(folder) / "log.csv", index=False)
        write(Path(folder), items__csv="item,title\n1,T\n")
        got = read(Path(folder), "table", table={"interactions": "log.csv", "items": "items.csv", "rating": "stars"})
        back = pd.read_csv(Path(folder) / "log.csv", dtype={"user": str, "item": str})
    expected = [(*row[:3], None if pd.isna(row[3]) else row[3]) for row in back.itertuples(index=False, name=None)]
    assert [row[:4] for row in got.interactions] == expected


def test_bad_rows_of_each_format(tmp_path):
    good = {"user": "u", "item": "i", "timestamp": 1}
    bad = [{**good, "user": None}, {"user": "u", "timestamp": 1}, {**good, "timestamp": "x"}]
    folder = write(tmp_path / "raw", log__jsonl="\n".join(map(json.dumps, [good, *bad])), items__jsonl='{"item": "i", "title": "T"}\n')
    got = read(folder, "table", table={"interactions": "log.jsonl", "items": "items.jsonl"})
    assert [row[1:3] for row in got.rejected] == [(2, "missing field user"), (3, "missing field item"), (4, "timestamp is not a number")]

    pl.DataFrame({"user": ["u", None], "item": ["i", "i"], "timestamp": [1, 2]}).write_parquet(folder / "log.parquet")
    got = read(folder, "table", table={"interactions": "log.parquet", "items": "items.jsonl"})
    assert got.rejected == [("log.parquet", 2, "empty user id", "i\t2")]


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv", "jsonl"])
def test_a_missing_column_is_named_with_those_there_are(tmp_path, ending):
    files = stored(tmp_path / "raw", LOG, ITEMS, ending)
    with pytest.raises(StageError) as error:
        read(tmp_path / "raw", "table", table={**COLUMNS, **files, "timestamp": "time"})
    for words in (f"log.{ending}", "'time' is missing", "what", "when", "who", "ingest.table"):
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"interactions": "none.csv"}, "none.csv: no such file"),
        ({"interactions": "none.parquet"}, "none.parquet: no such file"),
        ({"interactions": "log.xlsx"}, "log.xlsx: ends in none of .parquet, .csv"),
        ({"interactions": "broken.parquet"}, "broken.parquet: not a readable Parquet file"),
        ({"interactions": "empty.parquet"}, "empty.parquet: no rows"),
        ({"user": "kind"}, "'kind' is Boolean, which cannot serve as user"),
        ({"timestamp": "kind"}, "'kind' is Boolean, which cannot serve as timestamp"),
    ],
)
def test_bad_files_are_named(tmp_path, change, said):
    log = pl.DataFrame({"user": ["u"], "item": ["i"], "timestamp": [1], "kind": [True]})
    files = stored(tmp_path / "raw", log, pl.DataFrame({"item": ["i"], "title": ["T"]}), "parquet")
    write(tmp_path / "raw", broken__parquet=b"PAR1 and no more", log__xlsx="x")
    log.clear().write_parquet(tmp_path / "raw" / "empty.parquet")
    with pytest.raises(StageError) as error:
        read(tmp_path / "raw", "table", table={**files, **change})
    assert said in str(error.value)
