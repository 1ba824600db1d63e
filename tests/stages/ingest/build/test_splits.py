import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.ingest.build.splits import SPLITS, places, split_codes, warm_users
from stages.ingest.params import IngestParams
from stages.shared.core.errors import StageError

lengths_of_users = st.lists(st.integers(1, 40), min_size=1, max_size=4)


def splits_of(lengths: list[int], **params) -> list[list[str]]:
    """The splits of users with these numbers of interactions, user by user."""
    user = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    codes = split_codes(user, np.zeros(len(user), dtype=np.int64), IngestParams(**params))
    return [[SPLITS[code] for code in codes[user == number]] for number in range(len(lengths))]


def sizes(splits: list[str]) -> list[int]:
    """How many of each split; fails unless they are in order."""
    counts = [splits.count(name) for name in SPLITS]
    assert splits == [name for name, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
    return counts


def test_places():
    place, lengths = places(np.array([0, 0, 0, 2, 2], dtype=np.int32))
    assert place.tolist() == [0, 1, 2, 0, 1] and lengths.tolist() == [3, 0, 2]


@settings(max_examples=100, deadline=None)
@given(
    lengths=lengths_of_users,
    base_share=st.floats(0.1, 0.9),
    min_base=st.integers(1, 7),
    valid=st.integers(1, 4),
    test=st.integers(1, 12),
)
def test_positions_partition_each_sequence_in_order(lengths, base_share, min_base, valid, test):
    found = splits_of(lengths, base_share=base_share, min_base=min_base, valid_positions=valid, test_positions=test)
    for length, own in zip(lengths, found, strict=True):
        base = math.floor(base_share * length)
        train = length - base - valid - test
        assert sizes(own) == ([base, train, valid, test] if base >= min_base and train >= 1 else [length, 0, 0, 0])


def test_positions_at_the_edge():
    # 27 interactions: floor(.45 * 27) = 12 base, 1 train, 2 valid, 12 test. One fewer leaves nothing for train.
    found = splits_of([27, 25], base_share=0.45, valid_positions=2, test_positions=12)
    assert [sizes(own) for own in found] == [[12, 1, 2, 12], [25, 0, 0, 0]]


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (1, [1, 0, 0, 0]),
        (6, [6, 0, 0, 0]),  # five of base, one of valid and none of test: nothing to rank
        (7, [5, 0, 1, 1]),
        (8, [5, 1, 1, 1]),
        (20, [8, 10, 1, 1]),
    ],
)
def test_leave_one_out_by_hand(length, expected):
    assert sizes(splits_of([length], split="leave_one_out", base_share=0.45, min_base=5)[0]) == expected


@settings(max_examples=100, deadline=None)
@given(lengths=lengths_of_users, base_share=st.floats(0.05, 0.95), min_base=st.integers(1, 7))
def test_leave_one_out_holds_out_the_last_two_of_whoever_has_enough(lengths, base_share, min_base):
    for length, own in zip(lengths, splits_of(lengths, split="leave_one_out", base_share=base_share, min_base=min_base), strict=True):
        base, train, valid, test = sizes(own)
        assert base + train + valid + test == length
        if length < min_base + 2:
            assert base == length
        else:
            assert (valid, test) == (1, 1)
            assert base == min(max(min_base, math.floor(base_share * (length - 2))), length - 2)


def by_time(times: list[int], **shares) -> list[str]:
    params = IngestParams(split="global_time", **{"base_share": 0.5, "valid_share": 0.1, "test_share": 0.1, **shares})
    return [SPLITS[code] for code in split_codes(np.zeros(len(times), dtype=np.int32), np.array(times, dtype=np.int64), params)]


def test_global_time_by_hand():
    assert by_time([9, 1, 2, 3, 4, 5, 6, 7, 8, 0]) == ["test", *["base"] * 4, *["train"] * 3, "valid", "base"]
    # Of ten the cuts fall before the 6th, 9th and 10th; equal times go to the later side of a cut.
    assert sizes(by_time([0, 1, 2, 3, 5, 5, 6, 7, 8, 9])) == [4, 4, 1, 1]
    assert sizes(by_time([0, 1, 2, 3, 4, 5, 6, 8, 8, 9])) == [5, 2, 2, 1]


@settings(max_examples=100, deadline=None)
@given(
    times=st.lists(st.integers(-5, 40), min_size=1, max_size=120),
    base=st.floats(0.2, 0.6),
    valid=st.floats(0.05, 0.15),
    test=st.floats(0.05, 0.15),
)
def test_global_time_cuts_once_for_all(times, base, valid, test):
    try:
        found = by_time(times, base_share=base, valid_share=valid, test_share=test)
    except StageError as error:
        assert "leaves nothing for" in str(error)
        return
    codes = np.array([SPLITS.index(name) for name in found])
    for code in range(3):
        before, after = np.array(times)[codes <= code], np.array(times)[codes > code]
        assert before.max() < after.min()  # no straddling, no overlap
    shares = np.cumsum([base, 1 - base - valid - test, valid])
    for share, reached in zip(shares, np.cumsum(np.bincount(codes, minlength=4))[:3], strict=True):
        assert reached <= round(share * len(times) + 1e-9) + 1e-9
    one_later = [round(share * len(times)) for share in shares]
    ordered = sorted(times)
    for rank, code in zip(one_later, range(3), strict=True):  # and no earlier than equal times make it
        cut = ordered[min(rank, len(times) - 1)]
        assert all((time < cut) == (found_code <= code) for time, found_code in zip(times, codes, strict=True))


@pytest.mark.parametrize("times", [[7] * 50, [1, 2, 3], [0] * 49 + [1]])
def test_global_time_without_moments_to_cut_at(times):
    with pytest.raises(StageError, match=r"leaves nothing for.*ingest\.split"):
        by_time(times)


def test_warm_users_have_enough_in_base():
    user = np.array([0, 0, 0, 1, 1, 1, 2], dtype=np.int32)
    codes = np.array([0, 0, 1, 0, 1, 2, 3], dtype=np.int8)
    assert warm_users(user, codes, 1).tolist() == [True, True, False]
    assert warm_users(user, codes, 2).tolist() == [True, False, False]
