"""Any size of block gives the same tables, and what they say is what Python's own modules read."""

import csv
import gzip
import hashlib
import io
import json
import tempfile
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.ingest.readers import chunks, parquet
from stages.ingest.readers.chunks import Block, Input, Lines, line_table
from stages.shared.core.errors import StageError
from tests.support.raw_reading import read, write

MOVIES = "movieId,title,genres\n1,A,X\n"
# Whatever a title may hold, but for what ends a line, what no text file holds, and what Python alone strips as blank.
texts = st.text(st.characters(exclude_characters="\r\n\x00\x1c\x1d\x1e\x1f", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    str.strip
)
cells = st.sampled_from(["1", "22", "3.5", "", " 7 ", "x", '"8"', '"a,b"', '"', "é", "\u2028", "1e3", "99999999999999"])
lines = st.one_of(st.lists(cells, min_size=3, max_size=5).map(",".join), st.sampled_from(["1,2,3,4", "", "  "]))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(lines, min_size=1, max_size=12), end=st.sampled_from(["\n", "\r\n", ""]), size=st.integers(1, 40), packed=st.booleans()
)
def test_any_size_of_block_gives_the_same_table(rows, end, size, packed):
    content = ("\ufeffuserId,movieId,rating,timestamp\n" + "\n".join(["7,1,5,8", *rows])).encode() + end.encode()
    with tempfile.TemporaryDirectory() as folder:
        raw = write(Path(folder), ratings__csv=gzip.compress(content) if packed else content, movies__csv=MOVIES)
        whole = read(raw)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(chunks, "BLOCK", size)
            parts = read(raw)
    assert parts.tables == whole.tables and parts.log.files == whole.log.files
    assert whole.log.interaction_rows == 1 + sum(bool(row.strip()) for row in rows)
    assert len(whole.interactions) + len(whole.rejected) == whole.log.interaction_rows


@settings(max_examples=40, deadline=None)
@given(items=st.lists(st.tuples(texts, texts), min_size=1, max_size=8), size=st.integers(1, 64))
def test_quoted_titles_as_pandas_reads_them(items, size):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("movieId", "title", "genres"), *((n, *row) for n, row in enumerate(items))])
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "BLOCK", size)
        raw = write(Path(folder), ratings__csv="userId,movieId,rating,timestamp\n1,2,3,4\n", movies__csv=text.getvalue())
        got = read(raw)
        expected = pd.read_csv(raw / "movies.csv", dtype=str, keep_default_na=False, encoding="utf-8", lineterminator="\n")
    assert got.rejected == []
    assert [(item[0], item[1]) for item in got.items] == list(zip(expected["movieId"], expected["title"], strict=True))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(texts, texts, st.integers(-(2**35) + 1, 2**35 - 1), st.none() | st.integers(1, 5)), min_size=1, max_size=8),
    size=st.integers(1, 200),
)
def test_json_lines_as_the_json_module_reads_them(rows, size):
    records = [dict(zip(("reviewerID", "asin", "unixReviewTime", "overall"), row, strict=True)) for row in rows]
    content = "\n".join(json.dumps(record, ensure_ascii=size % 2 == 0) for record in records)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "BLOCK", size)
        raw = write(Path(folder), reviews_C_5__json=content, meta_C__json='{"asin": "a", "title": "A"}')
        got = read(raw)
    assert got.rejected == []
    strip = [(user.strip(), item.strip(), time, rating, number) for number, (user, item, time, rating) in enumerate(rows, start=1)]
    assert got.interactions == strip


def test_parquet_batches_count_on(tmp_path, monkeypatch):
    frame = pd.DataFrame({"user": [f"u{row}" for row in range(10)], "item": range(10), "timestamp": range(10)})
    (tmp_path / "raw").mkdir()
    frame.to_parquet(tmp_path / "raw" / "log.parquet")
    pd.DataFrame({"item": range(10), "title": list("abcdefghij")}).to_parquet(tmp_path / "raw" / "items.parquet")
    section = {"table": {"interactions": "log.parquet", "items": "items.parquet"}}
    whole = read(tmp_path / "raw", "table", **section)
    monkeypatch.setattr(parquet, "_BATCH", 3)
    assert read(tmp_path / "raw", "table", **section).tables == whole.tables
    assert [row[4] for row in whole.interactions] == list(range(1, 11))


@pytest.mark.parametrize("packed", [False, True])
def test_the_hash_is_that_of_the_file_as_it_lies(tmp_path, packed):
    content = b"a\nb\n" * 1000
    stored = gzip.compress(content) + gzip.compress(b"c\n") + b"\x00" * 100 if packed else content
    (tmp_path / "x.txt").write_bytes(stored)
    lines = Lines(Input(tmp_path / "x.txt"))
    assert b"".join(part.data for part in lines) == content + (b"c\n" if packed else b"")
    assert (lines.file.sha256, lines.file.size) == (hashlib.sha256(stored).hexdigest(), len(stored))


def test_a_member_of_an_archive_is_read_where_it_is(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("top/a.txt", "one\ntwo")
        archive.writestr("../evil.txt", "x")
    lines = Lines(Input(tmp_path / "x.zip", "top/a.txt"))
    assert [(part.data, part.first_row) for part in lines] == [(b"one\ntwo", 1)]
    assert lines.file.name == "a.txt" and lines.file.sha256 == hashlib.sha256(b"one\ntwo").hexdigest()
    with pytest.raises(StageError, match=r"holds no top/b.txt"):
        list(Lines(Input(tmp_path / "x.zip", "top/b.txt")))
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_a_damaged_archive_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.txt", "one\n" * 100)
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[60] ^= 1
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(StageError, match=r"x.zip, a.txt: cut short or damaged"):
        list(Lines(Input(tmp_path / "x.zip", "a.txt")))
    (tmp_path / "x.zip").write_bytes(content[:50])
    with pytest.raises(StageError, match=r"x.zip, a.txt: cut short or damaged \(File is not a zip"):
        list(Lines(Input(tmp_path / "x.zip", "a.txt")))


def test_a_file_without_lines_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "BLOCK", 10)
    monkeypatch.setattr(chunks, "LONGEST_LINE", 100)
    (tmp_path / "x.txt").write_bytes(b"a\n" + b"b" * 200)
    with pytest.raises(StageError, match=r"x.txt, row 2: longer"):
        list(Lines(Input(tmp_path / "x.txt")))


def test_lines_of_a_block():
    table = line_table(Block(b"a\r\n\n\xe9\n \nb\x85c\r", 5))
    assert table.rows() == [("a", 5, None), ("\ufffd", 7, "not UTF-8"), ("b\ufffdc", 9, "not UTF-8")]
    assert line_table(Block(b"a\n\xe9\x85", 1), "latin-1").rows() == [("a", 1, None), ("é…", 2, None)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("a\u00a0\ufeff \té,", max_size=4), min_size=1, max_size=6), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_blank_lines_and_marks_as_python_sees_them(lines, ended, end):
    """A line of white space alone is no row, and marks before a line are no part of it, whatever the other lines are."""
    data = (end.join(lines) + (end if ended else "")).encode()
    if not data:
        return
    rows = [(number, line.lstrip("\ufeff")) for number, line in enumerate(lines, 5)]
    expected = [row for row in rows if row[1].strip()]
    assert line_table(Block(data, 5)).select("row", "line").rows() == expected
