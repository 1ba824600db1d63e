"""Windows over long slates: where they lie, and how a training slate is cut to one."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.shared.slates.windows import training_windows, window_starts
from tests.stages.shared.slates.test_compact import SLATE

LONG = replace(SLATE, candidates=list(range(100, 130)), bins=[[rank] * 6 for rank in range(30)], target_rank=17)


def test_rank_llm_s_own_example() -> None:
    """20 of 100 passages, moving by 10 (RankGPT, section 3.2)."""
    assert list(window_starts(100, 20, 10)) == [80, 70, 60, 50, 40, 30, 20, 10, 0]


@given(st.integers(2, 60), st.integers(2, 60), st.integers(1, 60))
def test_windows_cover_every_place_from_the_end_to_the_beginning(count: int, size: int, step: int) -> None:
    starts = list(window_starts(count, min(size, count), min(step, size, count)))
    assert starts[-1] == 0 and starts == sorted(starts, reverse=True) and len(set(starts)) == len(starts)
    assert {place for start in starts for place in range(start, start + size) if place < count} == set(range(count))


@pytest.mark.parametrize("target", [0, 4, 17, 29])
def test_a_training_window_holds_the_target_wherever_it_stands(target: int) -> None:
    slates = [replace(LONG, slate=number, target_rank=target) for number in range(400)]
    starts = Counter()
    for cut in training_windows(slates, 10, 7):
        assert len(cut.candidates) == len(cut.bins) == 10 and cut.candidates[cut.target_rank] == 100 + target
        assert cut.candidates == list(range(cut.candidates[0], cut.candidates[0] + 10)) and cut.bins[0] == [cut.candidates[0] - 100] * 6
        starts[cut.candidates[0] - 100] += 1
    possible = range(max(0, target - 9), min(target, 20) + 1)
    assert set(starts) == set(possible) and min(starts.values()) > 400 / len(possible) / 3
    assert training_windows(slates[::-1], 10, 7)[::-1] == training_windows(slates, 10, 7)


def test_short_slates_and_no_window_change_nothing() -> None:
    assert training_windows([LONG], 0, 7) == [LONG] == training_windows([LONG], 30, 7)


def test_a_target_outside_of_the_window_is_none() -> None:
    assert LONG.at([3, 1]).target_rank == -1 and LONG.at([3, 17]).target_rank == 1
