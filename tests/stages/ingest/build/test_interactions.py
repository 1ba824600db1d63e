"""What is left of a log after the filters, against plain Python that does one step after the other."""

import math
from collections import Counter, defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.ingest.build import pairs
from stages.ingest.build.interactions import interactions
from stages.ingest.build.order import CodedRows, bounds, by_user_and_time
from stages.ingest.params import IngestParams
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json
from tests.support.raw_log import by_source, raw_log, run

rows = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.integers(0, 6).map(str),
        st.integers(-3, 12),
        st.none() | st.sampled_from([0.5, 3.3, 5.0]),
    ),
    min_size=1,
    max_size=60,
)
filters = st.fixed_dictionaries(
    {
        "min_rating": st.sampled_from([0.0, 3.3]),
        "min_interactions": st.integers(1, 4),
        "min_item_interactions": st.integers(0, 3),
        "max_history": st.integers(0, 5),
        "min_base": st.integers(1, 2),
        "base_share": st.sampled_from([0.3, 0.5]),
        "valid_positions": st.just(1),
        "test_positions": st.just(1),
        "valid_share": st.just(0.2),
        "test_share": st.just(0.2),
    }
)
Row = tuple[str, str, int, float | None, int]


def splits_by_hand(own: dict[str, list[Row]], split: str, params: dict) -> dict[tuple[str, str], str]:
    """(user, item) -> split, of users who stay."""
    found = {}
    times = sorted(row[2] for user in own for row in own[user])
    cuts = [
        times[min(round(share * len(times)), len(times) - 1)]
        for share in (params["base_share"], 1 - params["valid_share"] - params["test_share"], 1 - params["test_share"])
    ]
    for user, sequence in own.items():
        n = len(sequence)
        base = math.floor(n * params["base_share"])
        names = ["base"] * n
        if split == "positions" and base >= params["min_base"] and n - 2 - base >= 1:
            names = ["base"] * base + ["train"] * (n - 2 - base) + ["valid", "test"]
        if split == "leave_one_out" and n >= params["min_base"] + 2:
            base = min(max(math.floor((n - 2) * params["base_share"]), params["min_base"]), n - 2)
            names = ["base"] * base + ["train"] * (n - 2 - base) + ["valid", "test"]
        if split == "global_time":
            names = [("base", "train", "valid", "test")[sum(row[2] >= cut for cut in cuts)] for row in sequence]
            if names.count("base") < params["min_base"]:
                continue
        found |= {(user, row[1]): name for row, name in zip(sequence, names, strict=True)}
    return found


def by_hand(log: list[tuple], split: str, params: dict) -> list[tuple[str, str, int, int, str]]:
    """As by_source gives it. Empty where nothing is left, or global_time leaves a split without rows."""
    left: list[Row] = [(*row, number) for number, row in enumerate(log)]
    if params["min_rating"]:
        left = [row for row in left if row[3] is None or row[3] >= params["min_rating"]]
    earliest: dict[tuple[str, str], Row] = {}
    for row in sorted(left, key=lambda row: (row[2], row[4])):
        earliest.setdefault(row[:2], row)
    left = list(earliest.values())
    while True:
        users, items = Counter(row[0] for row in left), Counter(row[1] for row in left)
        kept = [row for row in left if users[row[0]] >= params["min_interactions"] and items[row[1]] >= params["min_item_interactions"]]
        if len(kept) == len(left):
            break
        left = kept
    own = defaultdict(list)
    for row in sorted(left, key=lambda row: (row[0], row[2], row[4])):
        own[row[0]].append(row)
    if params["max_history"]:
        own = {user: sequence[-params["max_history"] :] for user, sequence in own.items()}
    if not own:
        return []
    splits = splits_by_hand(own, split, params)
    if split == "global_time" and set(splits.values()) != {"base", "train", "valid", "test"}:
        return []
    return [
        (user, row[1], position, row[2], splits[user, row[1]])
        for user, sequence in own.items()
        if any(name == user for name, _ in splits)
        for position, row in enumerate(sequence)
    ]


@settings(max_examples=150, deadline=None)
@given(
    rows,
    filters,
    st.sampled_from(["positions", "leave_one_out", "global_time"]),
    st.sampled_from(["all", "interacted"]),
    st.sampled_from([2, pairs.ROWS_AT_ONCE]),
)
def test_the_whole_chain_against_plain_python(log, params, split, keep_items, rows_at_once):
    """With logs longer than `rows_at_once`, which are sorted in parts."""
    expected = by_hand(log, split, params)
    with TemporaryDirectory() as folder, patch.object(pairs, "ROWS_AT_ONCE", rows_at_once):
        raw = raw_log(Path(folder) / "raw", log)
        if not expected:
            with pytest.raises(StageError, match=r"no user has|leaves nothing for"):
                run(Path(folder), raw, split=split, keep_items=keep_items, **params)
            return
        out = run(Path(folder), raw, split=split, keep_items=keep_items, **params)
        assert by_source(out) == expected
        metrics = read_json(out / "metrics.json")
        gone = {key: count for key, count in metrics["dropped"].items() if not key.startswith(("users", "items", "cold"))}
        assert sum(gone.values()) + metrics["interactions"] == len(log)
        items = pl.read_parquet(out / "items.parquet")["source_id"].to_list()
        assert items == sorted({row[1] for row in (expected if keep_items == "interacted" else log)})
        assert pl.read_parquet(out / "users.parquet")["source_id"].to_list() == sorted({row[0] for row in expected})


def test_duplicates_keep_the_earliest_and_ties_the_first_row(tmp_path):
    log = [("u", "a", 9), ("u", "b", 5), ("u", "a", 3), ("u", "c", 5), ("u", "b", 5), ("short", "c", 1)]
    out = run(tmp_path, raw_log(tmp_path / "raw", log), min_interactions=2)
    assert [row[1:4] for row in by_source(out)] == [("a", 0, 3), ("b", 1, 5), ("c", 2, 5)]
    dropped = read_json(out / "metrics.json")["dropped"]
    assert dropped["duplicates"] == 2
    assert (dropped["users_outside_core"], dropped["items_outside_core"], dropped["interactions_outside_core"]) == (1, 0, 1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([-(2**40), -1, 0, 7, 2**40]), st.sampled_from([0, 0, 1, 999])), max_size=20),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_the_order_by_one_key_and_by_four(triples, huge, shuffled, fine):
    """One packed key where it fits, else (times and users too far apart, parts of seconds, rows out of order) four."""
    user = np.array([user * (2**29 if huge else 1) for user, *_ in triples], dtype=np.int32)
    time = np.array([time for _, time, _ in triples], dtype=np.int64)
    nanos = np.array([part if fine else 0 for *_, part in triples], dtype=np.int32)
    row = np.arange(len(triples), dtype=np.int64)
    row = row[::-1].copy() if shuffled else row
    expected = sorted(range(len(triples)), key=lambda place: (user[place], time[place], nanos[place], row[place]))
    kept = (row, nanos) if shuffled or nanos.any() else (None, None)
    assert by_user_and_time(CodedRows(user, np.zeros_like(user), time, *kept)).tolist() == expected


def test_kept_users_may_sort_otherwise_than_all(tmp_path):
    """All ids: text order, 10 before 9. The kept ones are numbers: 9 before 10."""
    log = [(user, item, 1) for user in ("10", "9") for item in ("x", "y")] + [("short", "x", 1)]
    out = run(tmp_path, raw_log(tmp_path / "raw", log), min_interactions=2)
    assert [row[:3] for row in by_source(out)] == [("9", "x", 0), ("9", "y", 1), ("10", "x", 0), ("10", "y", 1)]


def test_negative_ratings_stay_while_nothing_is_asked(tmp_path):
    log = [("u", "a", 1, -4.0), ("u", "b", 2, 1.0)]
    raw = raw_log(tmp_path / "raw", log)
    known = pl.Series(["a", "b"])
    assert interactions(raw, known, IngestParams(min_interactions=1)).table.height == 2
    assert interactions(raw, known, IngestParams(min_interactions=1, min_rating=0.5)).table.height == 1


def test_the_cap_comes_after_the_core(tmp_path):
    """Item x is in the core by its two takers; the cap then takes one of them away, and x stays with one."""
    log = [("u", "x", 1), ("u", "y", 2), ("u", "z", 3), ("v", "x", 3), ("v", "y", 4), ("v", "z", 2)]
    out = run(tmp_path, raw_log(tmp_path / "raw", log), min_interactions=2, min_item_interactions=2, max_history=2)
    assert [row[:2] for row in by_source(out)] == [("u", "y"), ("u", "z"), ("v", "x"), ("v", "y")]
    assert read_json(out / "metrics.json")["dropped"]["beyond_max_history"] == 2


def test_cold_users_leave_rather_than_become_base(tmp_path):
    """Three users from the beginning on, one who comes after the first cut."""
    log = [(f"u{user}", str(time), time) for user in range(3) for time in range(10)]
    log += [("late", str(time), time) for time in (7, 8, 9)]
    params = {"split": "global_time", "min_interactions": 1, "min_base": 2}
    out = run(tmp_path, raw_log(tmp_path / "raw", log), **params)
    found = by_source(out)
    assert {user for user, *_ in found} == {"u0", "u1", "u2"} and len(found) == 30
    dropped = read_json(out / "metrics.json")["dropped"]
    assert (dropped["cold_users"], dropped["interactions_of_cold_users"]) == (1, 3)

    with pytest.raises(StageError, match="needs times, and A log"):
        run(tmp_path, raw_log(tmp_path / "raw", log, time="order"), **params)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "no user has 20 interactions or more; lower"),
        (
            {"min_item_interactions": 3, "min_rating": 2.0},
            r"no user has 20 interactions or more \(among items with 3 and ratings of 2.0 or",
        ),
    ],
)
def test_nothing_left_is_said(tmp_path, params, said):
    with pytest.raises(StageError, match=said):
        run(tmp_path, raw_log(tmp_path / "raw", [("u", "a", 1, 5.0)]), **params)


def test_a_log_sorted_in_parts_gives_the_same_bytes(tmp_path, monkeypatch):
    """More rows than are sorted at once, users of very different lengths, repeats, ties in time and low ratings."""
    rng = np.random.default_rng(3)
    users = rng.zipf(1.4, 400) % 25
    log = [(f"u{user}", f"i{item}", int(time), float(rating)) for user, item, time, rating in zip(
        users, rng.integers(0, 30, 400), rng.integers(0, 60, 400), rng.integers(1, 6, 400), strict=True
    )]  # fmt: skip
    params = {"min_interactions": 2, "min_item_interactions": 2, "min_rating": 2.0, "min_base": 1, "split": "leave_one_out"}
    outs = []
    for rows_at_once in (pairs.ROWS_AT_ONCE, 150, 7):
        monkeypatch.setattr(pairs, "ROWS_AT_ONCE", rows_at_once)
        folder = tmp_path / str(rows_at_once)
        out = run(folder, raw_log(folder / "raw", log), **params)
        outs.append({path.name: path.read_bytes() for path in out.iterdir()})
        assert not list((folder / "raw").glob("codes*"))
    assert outs[0] == outs[1] == outs[2] and "interactions.parquet" in outs[0]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20).filter(any), st.integers(1, 6))
def test_bounds_cover_every_user_once(lengths, parts):
    found = bounds(np.array(lengths), parts)
    assert found[0] == 0 and found[-1] == len(lengths) and len(found) == parts + 1
    assert all(low <= high for low, high in zip(found, found[1:], strict=False))
    largest = max(sum(lengths[low:high]) for low, high in zip(found, found[1:], strict=False))
    assert largest <= sum(lengths) / parts + max(lengths), "a user is never cut, and no part has much more than its share"
