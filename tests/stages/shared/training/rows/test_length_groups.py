"""Batches of like lengths: what they save, and that no row is lost or comes twice."""

from collections import Counter

import numpy as np
import pytest

from stages.shared.lm.encoding import WeightedExample
from stages.shared.training.rows.length_groups import WINDOW, grouped_by_length, padding_share
from tests.support.training_run import run


def rows_of(lengths):
    return [WeightedExample([2 + place] * length, [1.0] * length) for place, length in enumerate(lengths)]


def grouped_rows(rows, batch_size, seed):
    return [rows[place] for place in grouped_by_length([len(row.ids) for row in rows], batch_size, seed)]


def uneven(count=600):
    """As traces in dialogues are: the prompts of some users are three times as long as others'."""
    return rows_of(np.random.default_rng(1).integers(400, 1200, count).tolist())


def test_padding_falls_and_every_row_stays():
    rows = uneven()
    grouped = grouped_rows(rows, 4, seed=7)
    assert Counter(map(id, grouped)) == Counter(map(id, rows)), "each row exactly once"
    assert padding_share(rows, 4) > 0.2 and padding_share(grouped, 4) < 0.02
    # Twice an epoch's rows: each twice.
    assert set(Counter(map(id, grouped_rows(rows * 2, 4, 7))).values()) == {2}


def test_the_order_is_random_by_the_seed():
    rows = uneven()
    grouped, longest = grouped_rows(rows, 4, 7), [max(len(row.ids) for row in uneven()[:1])]
    assert grouped == grouped_rows(rows, 4, 7) != grouped_rows(rows, 4, 8)
    longest = [max(len(row.ids) for row in grouped[start : start + 4]) for start in range(0, len(grouped), 4)]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.2, "neither rising nor falling"
    window = 4 * WINDOW
    assert {id(row) for row in grouped[:window]} == {id(row) for row in rows[:window]}, "no row goes far"


def test_rows_of_one_length_gain_nothing():
    """Packed rows, and traces of the compact layout with as many candidates each, are such: batches change places, rows do not."""
    rows = rows_of([192] * 30)
    grouped = grouped_rows(rows, 4, 7)
    assert padding_share(rows, 4) == padding_share(grouped, 4) == 0
    assert {tuple(id(row) for row in grouped[start : start + 4]) for start in range(0, 28, 4)} == {
        tuple(id(row) for row in rows[start : start + 4]) for start in range(0, 28, 4)
    }


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path):
    """The batches of a step are the same, so with the mean over the step the losses are, too."""
    options = {"steps": 3, "batch_size": 2, "loss_mean": "step", "group_by_length": True}
    curves = [run(tmp_path / str(processes), processes, 12, accumulate=2 // processes, **options)[1] for processes in (1, 2)]
    plain = run(tmp_path / "plain", 1, 12, accumulate=2, **{**options, "group_by_length": False})[1]
    assert [row["loss"] for row in curves[0]] == pytest.approx([row["loss"] for row in curves[1]], rel=1e-4)
    assert [row["loss"] for row in curves[0]] != pytest.approx([row["loss"] for row in plain], rel=1e-3)
