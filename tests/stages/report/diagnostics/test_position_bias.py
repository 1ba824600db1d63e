from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from stages.evaluate.shuffled_slates import shuffles
from stages.report.diagnostics.audit import audit, red_flags
from stages.report.diagnostics.position_bias import PositionBias
from stages.shared.core.errors import StageError
from stages.shared.slates.reranking.rankings import Rankings, from_scores, incoming
from stages.shared.slates.slate import Slate, permuted
from tests.stages.shared.slates.test_compact import SLATE

RNG = np.random.default_rng(5)
N, K, ITEMS = 60, 6, 50
QUALITY = RNG.normal(size=ITEMS)
SLATES = [
    Slate(i, i // 2, "test", i, [0], RNG.permutation(ITEMS)[:K].tolist(), RNG.integers(0, 9, (K, 6)).tolist(), int(RNG.integers(K)))
    for i in range(N)
]


def position_bias(answer, slates, seed, repeats=1, incoming=None):
    """`answer` asked for the slates as they are, unless `incoming` has that, and for shuffles of them."""
    orders = [shuffles(slates, seed, repeat) for repeat in range(repeats)]
    shuffled = []
    for order in orders:
        rankings = answer([permuted(slate, places) for slate, places in zip(slates, order.tolist(), strict=True)])
        shuffled.append(replace(rankings, orders=np.take_along_axis(order[: len(rankings.orders)], rankings.orders, axis=1)))
    targets = np.array([slate.target_rank for slate in slates])
    return PositionBias.of(answer(slates) if incoming is None else incoming, orders, shuffled, targets)


def blind(slates):
    """Looks at items alone."""
    return from_scores(np.array([QUALITY[slate.candidates] for slate in slates]))


def places(order, slates):
    """Looks at positions alone."""
    return Rankings(np.tile(order, (len(slates), 1)), [""] * len(slates), [""] * len(slates))


def test_a_permuted_slate_moves_all_that_belongs_to_a_candidate():
    order = [2, 0, 1]
    moved = permuted(SLATE, order)
    assert moved.candidates == [6, 4, 5] and moved.bins == [SLATE.bins[2], SLATE.bins[0], SLATE.bins[1]]
    assert moved.candidates[moved.target_rank] == SLATE.candidates[SLATE.target_rank]
    assert replace(moved, candidates=[], bins=[], target_rank=0) == replace(SLATE, candidates=[], bins=[], target_rank=0)
    assert permuted(replace(SLATE, target_rank=-1), order).target_rank == -1
    features = np.array(SLATE.bins)[None]
    assert np.take_along_axis(features, np.array([order])[..., None], axis=1)[0].tolist() == moved.bins


def test_shuffles_are_seeded_by_slate_and_never_the_incoming_order():
    orders = shuffles(SLATES, seed=1)
    assert (np.sort(orders, axis=1) == np.arange(K)).all() and not (orders == np.arange(K)).all(axis=1).any()
    assert (shuffles(SLATES[10:20], seed=1) == orders[10:20]).all()  # a slate's shuffle does not depend on its neighbours
    assert (shuffles(SLATES, seed=2) != orders).any() and (shuffles(SLATES, seed=1, repeat=1) != orders).any()
    pairs = [replace(slate, candidates=slate.candidates[:2], bins=slate.bins[:2], target_rank=0) for slate in SLATES]
    assert shuffles(pairs, seed=1).tolist() == [[1, 0]] * N
    with pytest.raises(StageError, match="slate 0: one candidate cannot be shuffled"):
        shuffles([replace(SLATE, candidates=[4])], seed=1)


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_scorer_blind_to_positions_has_none(repeats):
    found = position_bias(blind, SLATES, seed=3, repeats=repeats).summary()
    assert found["n"] == N * repeats and found["valid_share"] == [1.0] * (repeats + 1)
    assert (found["changed_share"], found["first_changed_share"], found["kendall_tau"]) == (0.0, 0.0, 1.0)
    assert found["new_position"] == [(K - 1) / 2] * K and found["slope"] == found["position_share"] == 0.0
    assert found["target_rank"]["incoming"] == found["target_rank"]["shuffled"]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 0, 1, 3, 4, 5]])
def test_of_one_that_sees_positions_only_the_bias_is_total(order):
    """Its new position by incoming position is the order it always gives."""
    found = position_bias(partial(places, order), SLATES, seed=3, repeats=2).summary()
    assert found["changed_share"] == 1.0 and found["position_share"] == pytest.approx(1.0)
    assert found["new_position"] == pytest.approx(np.argsort(order).tolist())
    centred = np.arange(K) - (K - 1) / 2
    assert found["slope"] == pytest.approx(centred @ np.argsort(order) / (centred @ centred))
    entry = audit(np.tile(order, (N, 1)), np.zeros(N, int), np.zeros(N, int), [""] * N) | {"position_bias": found}
    assert "ranks by position: 100.0% of the variance of its ranks is owed to where a candidate stands" in red_flags(entry)


def test_quality_is_held_fixed_where_the_incoming_order_follows_it():
    """Good items come in first, so their ranks seem owed to position; compared with themselves they are not."""
    sorted_in = [permuted(slate, np.argsort(-QUALITY[slate.candidates]).tolist()) for slate in SLATES]
    assert (blind(sorted_in).orders == np.arange(K)).all()
    assert position_bias(blind, sorted_in, seed=4).summary()["position_share"] == 0.0


def test_the_effects_are_those_of_a_regression_with_a_dummy_for_every_item():
    """Against ordinary least squares spelt out, on a ranker that weighs item and position, with invalid answers among them."""

    def mixed(slates):
        judged = from_scores(np.array([QUALITY[slate.candidates] - 0.4 * np.arange(K) for slate in slates]))
        return Rankings(
            judged.orders, ["missing" if slate.slate % 7 == 0 and slate.candidates[0] % 2 else "" for slate in slates], judged.texts
        )

    found = position_bias(mixed, SLATES, seed=6, repeats=2)
    rows, ranks = [], []
    for shown, answered, valid in zip(found.shown, found.answered, found.valid, strict=True):
        for slate in np.flatnonzero(valid):
            for position, item in enumerate(shown[slate]):
                row = np.zeros(K + N * K)
                row[position] = row[K + slate * K + item] = 1
                rows.append(row)
                ranks.append(list(answered[slate]).index(item))
    fitted = np.linalg.lstsq(np.array(rows), np.array(ranks), rcond=None)[0][:K]
    np.testing.assert_allclose(found.effects(), fitted - fitted.mean(), atol=1e-8)
    assert not found.valid.all() and 0.1 < found.summary()["slope"] < 1


def test_only_slates_valid_in_both_presentations_are_compared():
    def half(slates):
        own = blind(slates)
        return Rankings(own.orders, ["missing" if slate.slate % 2 else "" for slate in slates], own.texts)

    assert position_bias(half, SLATES, seed=3, repeats=2, incoming=blind(SLATES)).summary()["n"] == N
    none = position_bias(lambda slates: Rankings(blind(slates).orders, ["outside"] * len(slates), []), SLATES, seed=3)
    assert none.summary() == {"n": 0, "valid_share": [0.0, 0.0]}
    assert none.effects().tolist() == [0.0] * K


def test_the_incoming_answer_is_not_asked_again_where_it_is_given():
    asked = []

    def counting(slates):
        asked.append(len(slates))
        return blind(slates)

    given = position_bias(counting, SLATES, seed=3, repeats=2, incoming=blind(SLATES))
    assert asked == [N, N]
    again = position_bias(counting, SLATES, seed=3, repeats=2)
    assert asked == [N] * 5 and again.summary() == given.summary()


def test_answers_of_other_slates_are_refused():
    with pytest.raises(StageError, match=r"answers of shape \(59, 6\) to slates of shape \(60, 6\), and 60 answers of 6"):
        position_bias(lambda slates: incoming(slates[1:]), SLATES, seed=3, incoming=blind(SLATES))
