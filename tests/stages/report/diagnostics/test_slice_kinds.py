from types import SimpleNamespace

import numpy as np
import pytest

from stages.report.diagnostics.slice_kinds import SHOWN, kinds_of, slices_of
from stages.shared.stats.bootstrap import Bootstrap
from stages.shared.stats.metrics import METRICS

RNG = np.random.default_rng(0)
N, K = 400, 6
HELD = SimpleNamespace(
    slates=[None] * N,
    users=np.arange(N) // 2,
    positions=np.arange(N) % 40,
    targets=RNG.integers(0, K, N),
    candidates_NK=RNG.permuted(np.tile(np.arange(K), (N, 1)), axis=1),
    counts=np.arange(K) * 10,
    catalog=SimpleNamespace(categories=[["War", "Drama"], ["War"], [], ["Drama"], ["Drama"], ["War"]]),
)


def test_kinds_label_the_target():
    kinds = kinds_of(HELD)
    wanted = [HELD.candidates_NK[row, rank] for row, rank in enumerate(HELD.targets)]
    rows, labels = kinds["category"]
    assert set(zip(rows.tolist(), labels, strict=True)) == {
        (row, category) for row, item in enumerate(wanted) for category in HELD.catalog.categories[item] or ["none"]
    }
    for rank, label in zip(HELD.targets, kinds["incoming_rank"][1], strict=True):
        assert label == {0: "1", 1: "2-3", 2: "2-3", 3: "4-5", 4: "4-5", 5: "6+"}[rank]
    assert all(int(label.split("-")[0].rstrip("+")) <= 10 * item for item, label in zip(wanted, kinds["target_popularity"][1], strict=True))


def test_every_ranker_has_its_slices():
    ranks = {"incoming": HELD.targets, "rl": np.maximum(HELD.targets - 1, 0), "last_item": RNG.integers(0, K, N)}
    results = {name: {"rank": rank, "valid": np.ones(N, bool), "identical": np.zeros(N, bool)} for name, rank in ranks.items()}
    found = slices_of(results, "rl", kinds_of(HELD), Bootstrap(HELD.users, 50, 1))
    assert set(found["slices_of"]) == {"last_item"} and set(found["slices"]) == set(found["slices_of"]["last_item"])
    for own, names in ((found["slices"], METRICS), (found["slices_of"]["last_item"], SHOWN)):
        assert all(set(row) == {"slice", "n", "users", *names} for rows in own.values() for row in rows)
    [row] = [row for row in found["slices_of"]["last_item"]["incoming_rank"] if row["slice"] == "2-3"]
    part = np.isin(HELD.targets, [1, 2])
    assert row["n"] == part.sum() and row["mrr"]["mean"] == pytest.approx(np.mean(1 / (ranks["last_item"][part] + 1)))
    [row] = [row for row in found["slices"]["incoming_rank"] if row["slice"] == "2-3"]
    assert row["rank_gain"] == {"mean": 1.0, "diff": 1.0, "diff_ci": [1.0, 1.0]}
