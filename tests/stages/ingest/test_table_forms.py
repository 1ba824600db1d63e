"""A log of one's own as other programs leave it: times as text, other separators and encodings, items within the log, no titles."""

import datetime as dt

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.ingest.readers import chunks, parquet
from stages.ingest.readers.times import parse_times
from stages.shared.core.errors import StageError
from tests.support.raw_reading import read, write

LOG = {"interactions": "log.csv", "user": "who", "item": "what", "timestamp": "when", "time_format": "iso", "title": ""}
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))


@given(st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)), st.none() | zones, st.sampled_from("T "))
def test_iso_times_are_those_of_python(moment, zone, separator):
    text = moment.replace(tzinfo=zone).isoformat(separator)
    expected = moment.replace(tzinfo=zone).astimezone(dt.UTC).replace(tzinfo=None) if zone else moment
    assert parse_times(pl.Series([text]), "iso").to_list() == [expected]
    assert parse_times(pl.Series([text.replace(":", "").replace("-", "", 2)]), "iso").to_list() in ([expected], [None])


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ("iso", "20240105", (2024, 1, 5)),
        ("iso", "2024-01-05T10:11Z", (2024, 1, 5, 10, 11)),
        ("iso", "2024-02-30", None),
        ("iso", "yesterday", None),
        ("%d/%m/%Y", "5/1/2024", (2024, 1, 5)),
        ("%m/%d/%Y", "13/1/2024", None),
        ("%a %b %d %H:%M:%S %z %Y", "Fri Aug 25 13:55:02 -0700 2017", (2017, 8, 25, 20, 55, 2)),
    ],
)
def test_forms_of_times(form, text, expected):
    assert parse_times(pl.Series([text, None]), form).to_list() == [expected and dt.datetime(*expected), None]


def test_nanoseconds_order_what_microseconds_do_not():
    times = parse_times(pl.Series(["2024-01-05T00:00:00.000000002", "2024-01-05T00:00:00.000000001Z", "1500-01-01"]), "iso")
    assert times.dtype == pl.Datetime("ns") and times.arg_sort().to_list()[-2:] == [1, 0] and times[2] is None


def test_items_of_the_log_without_titles(tmp_path):
    log = "who,what,when\nann,a1,2024-01-05T10:00:00Z\nbob,a1,2024-01-06\nann,b 2,05.01.2024\n,b 2,2024-01-07\n"
    got = read(write(tmp_path / "raw", log__csv=log), "table", table=LOG)
    assert got.interactions == [("ann", "a1", 1704448800, None, 2), ("bob", "a1", 1704499200, None, 3)]
    assert [item[:5] for item in got.items] == [("a1", "Item a1", "", "", []), ("b 2", "Item b 2", "", "", [])]
    assert [row[:3] for row in got.rejected] == [
        ("log.csv", 4, "timestamp is no time of the form iso"),
        ("log.csv", 5, "empty user id"),
    ] and [file.name for file in got.log.files] == ["log.csv", "items of log.csv"]


@pytest.mark.parametrize("size", [20, 2**20])
def test_items_of_the_log_with_titles_that_are_missing_here_and_there(tmp_path, monkeypatch, size):
    monkeypatch.setattr("stages.ingest.readers.chunks.BLOCK", size)
    log = "who,what,when,name,kind\na,1,2024,,x\na,2,2024-01-01,Two,y\nb,1,2024-01-02,One,x;z\nc,1,2024-01-03,Uno,x\n"
    table = LOG | {"title": "name", "categories": "kind", "category_separator": ";"}
    got = read(write(tmp_path / "raw", log__csv=log), "table", table=table)
    assert sorted(item[:5] for item in got.items) == [("1", "One", "", "", ["x", "z"]), ("2", "Two", "", "", ["y"])]
    assert [row[1:3] for row in got.rejected] == [(2, "timestamp is no time of the form iso")]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("size", [1, 1000])
def test_cells_with_several_items(tmp_path, monkeypatch, ending, size):
    """Each is an interaction; items are those of another column of the same rows, each once, whatever block it stands in."""
    monkeypatch.setattr(chunks, "BLOCK", size)
    monkeypatch.setattr(parquet, "_BATCH", size)
    table = pl.DataFrame({"who": ["u", "v", "u"], "when": [3, 2, 1], "shown": [["a", "b", "c"], ["c", "d"], ["e", "a"]]})
    table = table.with_columns(bought=pl.Series([["b", "a"], [], ["e"]], dtype=pl.List(pl.String)))
    path = tmp_path / f"lists.{ending}"
    if ending == "csv":
        table.with_columns(pl.col("shown", "bought").list.join(" ")).write_csv(path)
    else:
        table.write_parquet(path) if ending == "parquet" else table.write_ndjson(path)
    keys = {"user": "who", "item": "bought", "timestamp": "when", "item_id": "shown", "title": "", "item_separator": " "}
    got = read(tmp_path, "table", table={"interactions": path.name, "items": path.name, **keys})
    first = 2 if ending == "csv" else 1
    assert [row[:3] for row in got.interactions] == [("u", "b", 3), ("u", "a", 3), ("u", "e", 1)] and not got.rejected
    assert [row[4] for row in got.interactions] == [10_000 * first + 1, 10_000 * first + 2, 10_000 * (first + 2) + 1]
    assert sorted(item[0] for item in got.items) == ["a", "b", "c", "d", "e"]


def test_other_separators_and_encodings(tmp_path):
    rows = 'who;what;wh\xe9n;name\nJörg;7;2024-01-05;"Öl; fein"\n'
    table = LOG | {"interactions": "log.txt", "separator": ";", "timestamp": "wh\xe9n", "title": "name", "encoding": "latin-1"}
    for encoding in ("utf-8", "latin-1"):
        got = read(write(tmp_path / encoding, log__txt=rows.encode(encoding)), "table", table=table)
        assert got.interactions[0][:2] == ("Jörg", "7") and got.items[0][:2] == ("7", "Öl; fein")
    with pytest.raises(StageError, match=r"log\.txt, row 1: not UTF-8"):
        read(tmp_path / "latin-1", "table", table=table | {"encoding": "utf-8"})
    with pytest.raises(StageError, match=r"log\.txt: ends in none of .*table\.separator"):
        read(tmp_path / "utf-8", "table", table=LOG | {"interactions": "log.txt"})


@pytest.mark.parametrize("form", ["%Q", "%d.%m.%Y", "%H:%M", "soon"])
def test_a_form_of_time_that_does_not_fit_is_named(tmp_path, form):
    folder = write(tmp_path / "raw", log__csv="who,what,when\na,1,2024-01-05\n")
    got = read(folder, "table", table=LOG | {"time_format": form})
    assert [row[:3] for row in got.rejected] == [("log.csv", 2, f"timestamp is no time of the form {form}")]
