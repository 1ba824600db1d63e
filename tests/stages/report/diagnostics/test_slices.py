import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.report.diagnostics.slices import by_slice, in_bins, in_quantiles
from stages.shared.core.errors import StageError
from stages.shared.stats.bootstrap import Bootstrap, paired_interval


def measured(n=300, seed=0):
    rng = np.random.default_rng(seed)
    before = {"mrr": rng.random(n), "recall@1": 1.0 * (rng.random(n) < 0.3)}
    after = {name: own + rng.normal(0.1, 0.2, n) for name, own in before.items()}
    return after, before, rng.integers(0, 80, n), rng.choice(["Drama", "Comedy", "War", "Noir"], n, p=[0.5, 0.4, 0.07, 0.03])


def test_rows_equal_a_group_by_of_pandas():
    after, before, users, labels = measured()
    rows = by_slice({"rl": after}, before, labels, smallest=40, bootstrap=Bootstrap(users, 300, 1))["rl"]
    frame = pd.DataFrame({"label": labels, "user": users, "mean": after["mrr"], "diff": after["mrr"] - before["mrr"]})
    counts = frame["label"].value_counts()
    frame["label"] = frame["label"].where(frame["label"].map(counts) >= 40, "other")
    assert [row["slice"] for row in rows] == ["Comedy", "Drama", "other"]
    for row in rows:
        part = frame[frame["label"] == row["slice"]]
        assert (row["n"], row["users"]) == (len(part), part["user"].nunique())
        assert row["mrr"]["mean"] == pytest.approx(part["mean"].mean())
        assert row["mrr"]["diff"] == pytest.approx(part["diff"].mean())
        np.testing.assert_allclose(row["mrr"]["diff_ci"], paired_interval(part["diff"], Bootstrap(part["user"], 300, 1)))
        assert set(row) == {"slice", "n", "users", "mrr", "recall@1"}


def test_labels_stand_in_the_order_of_their_numbers():
    after, before, users, _ = measured(60)
    labels = ["other", "10+", "5-9", "0-4", "Ab 2", "Ab 10"] * 10
    rows = by_slice({"rl": after}, before, labels, 1, Bootstrap(users, 50, 0))["rl"]
    assert [row["slice"] for row in rows] == ["0-4", "5-9", "10+", "Ab 2", "Ab 10", "other"]
    ranks = by_slice({"rl": after}, before, np.arange(60) % 12, 1, Bootstrap(users, 50, 0))["rl"]
    assert [row["slice"] for row in ranks] == [str(rank) for rank in range(12)]


def test_rankers_measured_together_get_what_each_would_alone():
    after, before, users, labels = measured()
    worse = {"mrr": before["mrr"] / 2}
    both = by_slice({"rl": after, "last_item": worse}, before, labels, 40, Bootstrap(users, 200, 3))
    assert list(both) == ["rl", "last_item"] and set(both["last_item"][0]) == {"slice", "n", "users", "mrr"}
    for name, own in (("rl", after), ("last_item", worse)):
        for row, alone in zip(both[name], by_slice({name: own}, before, labels, 40, Bootstrap(users, 200, 3))[name], strict=True):
            assert {key: row[key] for key in ("slice", "n", "users")} == {key: alone[key] for key in ("slice", "n", "users")}
            np.testing.assert_allclose(row["mrr"]["diff_ci"], alone["mrr"]["diff_ci"], atol=1e-12)


def test_a_slice_of_one_user_has_no_interval():
    rows = by_slice({"rl": {"mrr": np.ones(4)}}, {"mrr": np.zeros(4)}, ["a", "a", "b", "b"], 1, Bootstrap(np.array([1, 1, 2, 3]), 50, 0))[
        "rl"
    ]
    assert [row["mrr"]["diff_ci"] for row in rows] == [None, [1.0, 1.0]]
    assert [row["users"] for row in rows] == [1, 2]


def test_labels_must_fit_the_slates():
    with pytest.raises(StageError, match="3 labels for 4 slates"):
        by_slice({"rl": {"mrr": np.ones(4)}}, {"mrr": np.zeros(4)}, ["a"] * 3, 1, Bootstrap(np.arange(4), 50, 0))


@given(st.lists(st.integers(2, 50), min_size=1, max_size=30), st.sets(st.integers(3, 40), max_size=5))
def test_every_number_lies_in_its_bin(numbers, more):
    for number, text in zip(numbers, in_bins(numbers, [2, *sorted(more)]), strict=True):
        ends = [int(part) for part in text.rstrip("+").split("-")]
        assert ends[0] <= number and (text.endswith("+") or number <= ends[-1])


def test_bins_by_hand():
    assert in_bins([1, 4, 5, 6, 99], [1, 5, 6]) == ["1-4", "1-4", "5", "6+", "6+"]
    with pytest.raises(StageError, match="0 lies before the first bin, which starts at 1"):
        in_bins([3, 0], [1, 5])


def test_quantiles_hold_about_as_many_each():
    _, counts = np.unique(in_quantiles(np.random.default_rng(2).integers(0, 1000, 400), 4), return_counts=True)
    assert len(counts) == 4 and abs(counts - 100).max() <= 5
    assert set(in_quantiles([0] * 90 + [7] * 10, 4)) == {"0+"}  # nearly all alike: one bin
