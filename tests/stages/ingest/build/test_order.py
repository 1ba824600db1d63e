"""The order of the log and the first of each pair, against plain Python; the same from numbers and from texts."""

from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.ingest.build import ids, order, pairs
from stages.ingest.build.ids import NumberCodes
from stages.ingest.build.order import CodedRows, first_pairs
from stages.ingest.readers.raw import RAW_NUMBERS
from tests.support.raw_log import raw_log, run

log_rows = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 5), st.sampled_from([-(2**40), -1, 0, 7, 8]), st.sampled_from([0, 0, 1])), max_size=40
)


@settings(max_examples=200, deadline=None)
@given(rows=log_rows, by_user=st.booleans(), fine=st.booleans(), shuffled=st.booleans(), part=st.sampled_from([1, 3, order.PART]))
def test_first_pairs_as_python_finds_them(rows, by_user, fine, shuffled, part):
    rows = sorted(rows, key=lambda row: row[0]) if by_user else rows
    numbers = list(range(len(rows)))[:: -1 if shuffled else 1]
    expected, seen = [], set()
    in_order = sorted(range(len(rows)), key=lambda at: (rows[at][0], rows[at][2], rows[at][3] * fine, numbers[at]))
    for user, item, time, _ in (rows[at] for at in in_order):
        if (user, item) not in seen:
            seen.add((user, item))
            expected.append((user, item, time))
    user, item, time, nanos = (np.array([row[place] for row in rows], dtype=dtype) for place, dtype in enumerate(("i4", "i4", "i8", "i4")))
    kept = (np.array(numbers, dtype=np.int64), nanos * np.int32(fine)) if fine or shuffled else (None, None)
    with patch.object(order, "PART", part):
        found = first_pairs(CodedRows(user, item, time, *kept), 6)
    assert list(zip(found.user_N.tolist(), found.item_N.tolist(), found.time_N.tolist(), strict=True)) == expected


@given(
    known=st.lists(st.integers(0, 2**63 - 1) | st.integers(-5, 40), unique=True, max_size=12),
    others=st.lists(st.sampled_from(["007", "x", "", "-0", str(2**63)]), unique=True),
    asked=st.lists(st.integers(0, 2**63 - 1) | st.integers(-5, 40), max_size=8),
    dense=st.sampled_from([4, ids._DENSE]),
)
def test_codes_of_numbers(known, others, asked, dense):
    names = [*map(str, known), *others]
    with patch.object(ids, "_DENSE", dense):
        codes = NumberCodes(pl.Series(names, dtype=pl.String))
        found = codes.of(np.array(asked + known, dtype=np.int64))
    assert found.tolist() == [names.index(str(number)) if str(number) in names else -1 for number in asked + known]


@pytest.mark.parametrize("known", [["3", "007", "x", *map(str, range(10, 40))], [*map(str, range(45))]])
def test_a_log_of_numbers_gives_the_bytes_of_one_of_texts(tmp_path, monkeypatch, known):
    """With items that the item file lacks, low ratings, repeats, ties in time; at once and in parts; in any order of users."""
    rng = np.random.default_rng(5)
    columns = (rng.zipf(1.4, 500) % 25, rng.integers(0, 40, 500), rng.integers(0, 60, 500), rng.integers(1, 6, 500))
    log = [(str(user), str(item), int(time), float(rating)) for user, item, time, rating in zip(*columns, strict=True)]
    params = {"min_interactions": 2, "min_item_interactions": 2, "min_rating": 2.0, "min_base": 1, "missing_items": "drop"}
    outs = []
    for rows_at_once, part in ((pairs.ROWS_AT_ONCE, order.PART), (150, 20), (7, 3)):
        monkeypatch.setattr(pairs, "ROWS_AT_ONCE", rows_at_once)
        monkeypatch.setattr(order, "PART", part)
        for as_numbers in (False, True):
            folder = tmp_path / f"{rows_at_once}-{as_numbers}"
            raw = raw_log(folder / "raw", log, known)
            if as_numbers:
                pl.read_parquet(raw.interactions).cast(RAW_NUMBERS).write_parquet(raw.interactions, row_group_size=64)
            out = run(folder, raw, **params)
            outs.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert all(out == outs[0] for out in outs) and "interactions.parquet" in outs[0]


def test_rows_that_go_back_in_the_file_are_read_again(tmp_path):
    """In the second block the rows begin anew: then the rows decide among equal times, and not the places."""
    with TemporaryDirectory() as folder:
        raw = raw_log(Path(folder), [("1", str(item), 5) for item in (3, 2, 1, 0)])
        table = pl.read_parquet(raw.interactions).with_columns(row=pl.Series([7, 8, 1, 2])).cast(RAW_NUMBERS)
        table.write_parquet(raw.interactions, row_group_size=2)
        found = pairs.read_pairs(raw, pl.Series(["0", "1", "2", "3"]), 0.0)
    assert found.table["item"].to_list() == [1, 0, 3, 2]


@pytest.mark.parametrize("users", [["3", "5"], ["3", str(2**40)], ["3", "-5"]])
def test_distinct_numbers_small_and_large(tmp_path, users):
    raw = raw_log(tmp_path, [(user, "1", 5) for user in users * 2])
    pl.read_parquet(raw.interactions).cast(RAW_NUMBERS).write_parquet(raw.interactions)
    assert sorted(ids.distinct(raw.interactions, "user")) == sorted(users)
