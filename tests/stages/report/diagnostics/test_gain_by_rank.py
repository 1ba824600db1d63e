from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.report.diagnostics.gain_by_rank import gain_decomposition, gains_by_incoming_rank
from stages.shared.core.errors import StageError
from stages.shared.stats.bootstrap import Bootstrap, paired_interval


def ndcg5(rank):
    return 1 / np.log2(rank + 2) if rank < 5 else 0.0


def made_up(seed=0, n=300, size=8):
    rng = np.random.default_rng(seed)
    target = np.minimum(rng.geometric(0.3, n) - 1, size - 1)
    return {"a": rng.integers(0, size, n), "b": np.maximum(target - 1, 0)}, target, np.repeat(np.arange(n // 3), 3)


def test_rows_agree_with_pandas():
    ranks, target, users = made_up()
    found = gains_by_incoming_rank(ranks, target, 8, Bootstrap(users, 200, 0))
    for name, rank in ranks.items():
        frame = pd.DataFrame({"target": target, "gain": target - rank})
        frame["ndcg"] = [ndcg5(new) - ndcg5(old) for new, old in zip(rank, target, strict=True)]
        expected = frame.groupby("target").agg(n=("gain", "size"), gain=("gain", "mean"), ndcg=("ndcg", "mean"))
        assert [row["incoming_rank"] for row in found[name]] == expected.index.tolist()
        for row, own in zip(found[name], expected.itertuples(), strict=True):
            assert row["n"] == own.n
            assert row["rank_gain"]["diff"] == pytest.approx(own.gain)
            assert row["ndcg@5"]["diff"] == pytest.approx(own.ndcg)


def test_intervals_are_those_of_the_slates_at_that_rank_alone():
    ranks, target, users = made_up()
    row = gains_by_incoming_rank(ranks, target, 8, Bootstrap(users, 200, 5))["a"][1]
    mask = target == 1
    assert row["rank_gain"]["diff_ci"] == pytest.approx(
        paired_interval((target - ranks["a"])[mask].astype(float), Bootstrap(users[mask], 200, 5))
    )


def test_random_and_bounds_are_those_of_every_permutation():
    size = 4
    target = np.arange(size).repeat(2)
    rows = gains_by_incoming_rank({"a": target}, target, size, Bootstrap(np.tile([0, 1], size), 100, 0))["a"]
    for row in rows:
        came = row["incoming_rank"]
        new = [order.index(came) for order in permutations(range(size))]
        gains, diffs = [came - rank for rank in new], [ndcg5(rank) - ndcg5(came) for rank in new]
        for own, values in ((row["rank_gain"], gains), (row["ndcg@5"], diffs)):
            assert [own["upper"], own["lower"], own["random"]] == pytest.approx([max(values), min(values), np.mean(values)])
        assert row["rank_gain"]["random"] == pytest.approx(came - (size - 1) / 2)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 20))
def test_the_parts_add_up_and_nothing_exceeds_its_bounds(seed, n):
    ranks, target, users = made_up(seed, 3 * n)
    for name, rows in gains_by_incoming_rank(ranks, target, 8, Bootstrap(users, 100, 0)).items():
        whole = np.mean([ndcg5(new) - ndcg5(old) for new, old in zip(ranks[name], target, strict=True)])
        split = gain_decomposition(rows)
        assert sum(row["part"] for row in rows) == pytest.approx(whole)
        assert split["first"] + split["others"] == pytest.approx(whole)
        assert split["first"] <= 1e-12  # a target that came in first cannot rise
        for row in rows:
            for kind in ("rank_gain", "ndcg@5"):
                assert row[kind]["lower"] - 1e-12 <= row[kind]["diff"] <= row[kind]["upper"] + 1e-12


def test_a_rank_of_one_user_has_no_interval():
    rows = gains_by_incoming_rank({"a": np.array([0, 1, 0])}, np.array([0, 0, 1]), 3, Bootstrap(np.array([1, 2, 2]), 100, 0))["a"]
    assert rows[0]["rank_gain"]["diff_ci"] is not None
    assert rows[1]["rank_gain"]["diff_ci"] is None and rows[1]["ndcg@5"]["diff_ci"] is None


def test_other_slates_are_an_error():
    with pytest.raises(StageError, match="b: 2 ranks for 3 slates"):
        gains_by_incoming_rank({"b": np.array([0, 1])}, np.array([0, 0, 1]), 3, Bootstrap(np.array([1, 2, 2]), 100, 0))
