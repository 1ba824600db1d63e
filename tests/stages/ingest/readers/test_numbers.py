"""Blocks that are read as numbers say what they say as text, cell by cell, or are not read so."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.ingest.readers import delimited
from stages.ingest.readers.chunks import Block, line_table
from stages.ingest.readers.delimited import Columns, split_columns
from stages.ingest.readers.forget import digest
from stages.ingest.readers.numbers import read_numbers
from stages.ingest.readers.raw import RAW_INTERACTIONS, RAW_NUMBERS
from stages.ingest.readers.scratch import LogWriter
from stages.ingest.readers.validate import check_interactions
from tests.support.raw_reading import read, write

MOVIES = "movieId,title,genres\n1,A,X\n"
LATEST = 2**35 - 1
ids = st.integers(0, 2**63 - 1).map(str) | st.integers(0, 30).map(str)
odd_ids = st.sampled_from(["007", "+7", "-7", "-0", "00", " 7", "7 ", "", "7.0", "1e3", "٣", '"8"', "x", str(2**63), "1_0", "0x1"])
times = st.integers(0, LATEST).map(str)
odd_times = st.sampled_from(["01", "-5", "", "12.5", " 3", str(LATEST + 1), "1e9", "nan", str(2**64)])
ratings = st.integers(0, 10).map(str) | st.decimals(0, 10, places=3).map(str) | st.just("")
odd_ratings = st.sampled_from([".5", "5.", "1e3", "nan", "inf", " 3", "x", "0.1000000000000000055511151231257827", "16777217", "-2", '"4"'])


def mostly(usual: st.SearchStrategy[str], odd: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.integers(0, 15).flatmap(lambda draw: odd if draw == 0 else usual)


rows = st.tuples(mostly(ids, odd_ids), mostly(ids, odd_ids), mostly(ratings, odd_ratings), mostly(times, odd_times), st.just("z"))
lines = mostly(st.just(""), st.sampled_from(["blank", "space", "short", "long"])).flatmap(lambda fault: rows.map(lambda row: (fault, row)))


def written(table: list[tuple[str, tuple[str, ...]]], width: int, separator: str, end: str, ended: bool) -> bytes:
    faults = {"blank": "", "space": "  ", "short": "1", "long": separator.join("1" * (width + 1))}
    texts = [faults.get(fault, separator.join(row[:width])) for fault, row in table]
    return (end.join(texts) + (end if ended else "")).encode()


@settings(max_examples=300, deadline=None)
@given(
    table=st.lists(lines, min_size=1, max_size=6),
    width=st.sampled_from([4, 5]),
    separator=st.sampled_from([",", "\t", ";", "::"]),
    end=st.sampled_from(["\n", "\r\n", "\r\r\n"]),
    ended=st.booleans(),
    unit=st.sampled_from(["s", "ms", "ns"]),
)
def test_as_text_or_not_at_all(table, width, separator, end, ended, unit):
    data = written(table, width, separator, end, ended)
    names = ["user", "item", "rating", "timestamp", "more"][:width]
    columns = Columns(dict.fromkeys(names, ()))
    numbers = read_numbers(Block(data, 7), separator, columns.positions, width, unit)
    if numbers is None:
        return
    assert dict(numbers.schema) == RAW_NUMBERS
    as_text = check_interactions(split_columns(line_table(Block(data, 7)), separator, columns, quoted=len(separator) == 1), unit)
    assert as_text["reason"].null_count() == as_text.height
    assert numbers.with_columns(pl.col("user", "item").cast(pl.String)).rows() == as_text.select(list(RAW_INTERACTIONS)).rows()


@pytest.mark.parametrize("separator", [",", "\t", "::"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_plain_blocks_are_read_as_numbers(separator, end):
    table = [("", ("1", "20", "3.5", "1000000000")), ("", (str(2**63 - 1), "0", "", "0"))]
    positions = {"user": 0, "item": 1, "rating": 2, "timestamp": 3}
    for ended in (True, False):
        numbers = read_numbers(Block(written(table, 4, separator, end, ended), 2), separator, positions, 4, "s")
        assert numbers is not None
        assert numbers.rows() == [(1, 20, 10**9, 3.5, 2, 0), (2**63 - 1, 0, 0, None, 3, 0)]


@pytest.mark.parametrize(
    "line", ["1,02,3,4", "1,2,3", "1,2,3,4,5", "+1,2,3,4", " 1,2,3,4", "1,2,3,-4", "1,2,x,4", '1,2,"3",4', "", "1,2,3,4,"]
)
def test_one_odd_line_is_enough(line):
    positions = {"user": 0, "item": 1, "rating": 2, "timestamp": 3}
    data = f"1,2,3,4\n5,6,7,8\n{line}\n9,9,9,9\n".encode()
    assert read_numbers(Block(data, 2), ",", positions, 4, "s") is None


def test_a_short_line_is_not_made_up_for_by_a_long_number():
    """The last column is none of numbers, so no number is missing; 07 has the byte that the separator would have."""
    positions = {"user": 0, "item": 1, "rating": None, "timestamp": 2}
    assert read_numbers(Block(b"1,2,3,\n4,5,6\n7,8,09,\n", 2), ",", positions, 4, "s") is None


@settings(max_examples=30, deadline=None)
@given(table=st.lists(lines, min_size=1, max_size=8), ended=st.booleans(), salt=st.sampled_from(["", "s"]))
def test_a_file_read_as_numbers_or_as_text(table, ended, salt):
    """The whole way to the scratch tables, with a user to be forgotten as well."""
    content = b"userId,movieId,rating,timestamp\n" + written([("", ("7", "1", "5", "8")), *table], 4, ",", "\n", ended)
    section = {"forget": [digest("7", salt)], "forget_salt": salt} if salt else {}
    with TemporaryDirectory() as folder:
        raw = write(Path(folder), ratings__csv=content, movies__csv=MOVIES)
        as_numbers = read(raw, **section)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(delimited, "read_numbers", lambda *_: None)
            as_text = read(raw, **section)
    assert as_numbers.tables == as_text.tables
    assert as_numbers.log.interaction_rows == as_text.log.interaction_rows and as_numbers.log.forgotten == as_text.log.forgotten


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.lists(mostly(ids, odd_ids.filter(bool)), min_size=1, max_size=3)), max_size=4))
def test_the_table_holds_numbers_until_an_id_is_none(blocks):
    """Blocks come as text or, where they can, as numbers; the table has them all, in their order."""
    expected = [(user, user) for _, users in blocks for user in users]
    plain = all(re.fullmatch("0|-?[1-9][0-9]*", user) and int(user) < 2**63 for user, _ in expected)
    with TemporaryDirectory() as folder:
        writer = LogWriter(Path(folder) / "interactions.parquet")
        for as_numbers, users in blocks:
            block = pl.DataFrame({"user": users, "item": users}, schema={"user": pl.String, "item": pl.String})
            block = block.with_columns(timestamp=pl.lit(5), rating=pl.lit(None), row=pl.int_range(pl.len()), nanos=pl.lit(0))
            numbers = block.with_columns(pl.col("user", "item").cast(pl.Int64, strict=False))
            same = numbers.with_columns(pl.col("user", "item").cast(pl.String)).equals(block)
            writer.write(numbers if as_numbers and same else block)
        writer.close()
        assert [path.name for path in Path(folder).iterdir()] == ["interactions.parquet"]
        table = pl.read_parquet(writer.path)
    assert dict(table.schema) == (RAW_NUMBERS if plain and expected else RAW_INTERACTIONS)
    assert table.select(pl.col("user", "item").cast(pl.String)).rows() == expected
