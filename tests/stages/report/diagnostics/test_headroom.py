import numpy as np
import pytest

from stages.report.diagnostics.headroom import headroom, world_notes
from stages.shared.slates.reranking.rankings import from_scores
from stages.shared.stats.bootstrap import Bootstrap


def world(slates: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Chances [n, 4] of each candidate, and users of four slates each."""
    rng = np.random.default_rng(3)
    return rng.dirichlet(np.ones(4), size=slates), np.arange(slates) // 4


def test_shares_of_known_orders():
    chances, users = world()
    rng = np.random.default_rng(5)
    half = np.where(rng.random((len(chances), 1)) < 0.5, chances, -np.arange(4.0))  # the best order of every other slate
    judged = {
        "incoming": from_scores(np.zeros_like(chances)),
        "half": from_scores(half),
        "worst": from_scores(-chances),
        "oracle": from_scores(chances),
    }
    found = headroom(judged, chances, Bootstrap(users, 400, 7))
    assert found["incoming"]["share"] == 0 and found["oracle"]["share"] == pytest.approx(1)
    assert found["oracle"]["share_ci"] == pytest.approx([1, 1])
    low, high = found["half"]["share_ci"]
    assert low < found["half"]["share"] < high and low < 0.5 < high and high - low < 0.25
    assert found["worst"]["share_ci"][1] < 0
    # The best order puts the likeliest first: its expected NDCG@5 by hand.
    discounts = 1 / np.log2(np.arange(4) + 2)
    assert found["oracle"]["ndcg@5"] == pytest.approx(float((np.sort(chances, axis=1)[:, ::-1] @ discounts).mean()))
    assert "half 4" in world_notes({"achievable": found})[0] or "half 5" in world_notes({"achievable": found})[0]


def test_nothing_to_gain_has_no_share():
    chances = np.full((6, 4), 0.25)
    found = headroom(dict.fromkeys(("incoming", "oracle"), from_scores(np.zeros((6, 4)))), chances, Bootstrap(np.arange(6), 100, 7))
    assert found["oracle"]["share"] is None and "share_ci" not in found["oracle"]
    assert world_notes({"achievable": found}) == []
