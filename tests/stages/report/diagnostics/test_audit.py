import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stages.report.diagnostics.audit import (
    adjacent_swap_only,
    audit,
    commonest_order_share,
    first_from,
    identical_to_incoming,
    invalid_by_kind,
    kendall_tau,
    lengths,
    moves_by_incoming_rank,
    position_histogram,
    rank_flow,
    red_flags,
    reversed_incoming,
)
from stages.shared.generation.reranking.language_model import thought_length
from stages.shared.slates.reranking.padding import padded_orders
from stages.shared.stats.metrics import movement, ranks_of_targets

COPY = np.tile(np.arange(4), (6, 1))
TARGETS = np.array([0, 1, 2, 3, 3, 3])
RNG = np.random.default_rng(0)
N, K = 400, 10
MANY = RNG.integers(0, K, N)
HONEST = RNG.permuted(np.tile(np.arange(K), (N, 1)), axis=1)


def audited(orders, kinds=None):
    return audit(orders, MANY, ranks_of_targets(orders, MANY), kinds or [""] * len(orders))


def test_a_copying_model_is_found_out():
    result = audit(COPY, TARGETS, ranks_of_targets(COPY, TARGETS), [""] * 6)
    assert result["identity_share"] == 1.0
    assert result["rank_flow"] == np.diag([1, 1, 1, 3]).tolist()
    assert all(row["gain"] == 0 for row in result["by_incoming_rank"])


def test_a_model_that_always_answers_the_same_is_found_out():
    orders = np.tile([2, 0, 3, 1], (6, 1))
    assert commonest_order_share(orders) == 1.0
    histogram = position_histogram(orders)
    assert histogram[2].tolist() == [6, 0, 0, 0]  # the third candidate is always put first
    shuffled = np.random.default_rng(0).permuted(np.tile(np.arange(10), (500, 1)), axis=1)
    assert commonest_order_share(shuffled) < 0.02
    assert position_histogram(shuffled).sum(axis=0).tolist() == [500] * 10


def test_moves_by_incoming_rank_leave_out_ranks_nobody_came_in_at():
    flow = rank_flow(np.array([3, 3, 1, 1]), np.array([0, 1, 1, 2]), 4)
    assert moves_by_incoming_rank(flow) == [
        {"incoming_rank": 1, "n": 2, "mean_new_rank": 1.5, "gain": -0.5, "promoted": 0, "kept": 1, "demoted": 1},
        {"incoming_rank": 3, "n": 2, "mean_new_rank": 0.5, "gain": 2.5, "promoted": 2, "kept": 0, "demoted": 0},
    ]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30))
def test_the_moves_add_up_to_the_shares(pairs):
    target_rank, rank = np.array(pairs).T
    rows, moves = moves_by_incoming_rank(rank_flow(target_rank, rank, 6)), movement(rank, target_rank)
    assert sum(row["n"] for row in rows) == len(pairs)
    assert [row["incoming_rank"] for row in rows] == sorted(set(target_rank.tolist()))
    assert sum(row["gain"] * row["n"] for row in rows) == pytest.approx(moves["rank_gain"].sum())
    for name in ("promoted", "demoted"):
        assert sum(row[name] for row in rows) == moves[name].sum()


def test_invalid_outputs_are_counted_by_kind():
    assert invalid_by_kind(["", "no answer", "", "repeats a candidate", "no answer"]) == {"no answer": 0.4, "repeats a candidate": 0.2}
    assert invalid_by_kind(["", ""]) == {}


def test_planted_cheats_are_named_and_an_honest_model_is_not():
    incoming = np.tile(np.arange(K), (N, 1))
    swaps = incoming.copy()
    places = np.arange(N) % (K - 1)
    swaps[np.arange(N), places], swaps[np.arange(N), places + 1] = places + 1, places
    assert red_flags(audited(HONEST)) == []
    assert "repeats the initial ranking on 100.0% of the slates" in red_flags(audited(incoming))
    assert "reverses the initial ranking on 100.0% of the slates" in red_flags(audited(incoming[:, ::-1]))
    for place in (1, 2, 9):
        promotes = np.stack([[place, *RNG.permutation([rank for rank in range(K) if rank != place])] for _ in range(N)])
        assert red_flags(audited(promotes)) == [f"puts position {place + 1} first in 100.0% of its answers"]
    assert red_flags(audited(swaps)) == ["repeats the initial ranking or swaps two neighbours in it on 100.0% of the slates"]
    assert "gives one and the same order in 100.0% of its answers" in red_flags(audited(np.tile(HONEST[0], (N, 1))))


def test_the_figures_of_a_model_that_promotes_one_position():
    found = audited(np.tile([2, 0, 1, *range(3, K)], (N, 1)))
    assert found["first_from"] == {"shares": [0, 0, 1, *[0] * 7], "entropy": 0.0, "commonest": 2, "commonest_share": 1.0}
    assert (found["identity_share"], found["adjacent_swap_share"], found["reversed_share"]) == (0, 0, 0)
    assert found["kendall_tau"] == pytest.approx(1 - 2 * 2 / 45)
    even = first_from(np.stack([np.roll(np.arange(8), shift) for shift in range(8)]))
    assert even["entropy"] == pytest.approx(3) and even["commonest_share"] == 1 / 8


def test_an_invalid_answer_is_no_copy():
    """It stands as the initial ranking, for the score; the audit of a model half of whose answers are broken must not call it a copier."""
    orders = HONEST.copy()
    orders[: N // 2] = np.arange(K)
    kinds = ["duplicate"] * (N // 4) + ["outside"] * (N // 4) + [""] * (N // 2)
    found = audited(orders, kinds)
    alone = audit(HONEST[N // 2 :], MANY[N // 2 :], ranks_of_targets(HONEST[N // 2 :], MANY[N // 2 :]), [""] * (N // 2))
    assert found["identity_share"] == 0 and found["valid_share"] == 0.5 and found["invalid"] == {"duplicate": 0.25, "outside": 0.25}
    assert (found["kendall_tau"], found["first_from"]) == (alone["kendall_tau"], alone["first_from"])
    assert red_flags(found) == []


def test_a_model_without_one_valid_answer():
    found = audited(np.tile(np.arange(K), (N, 1)), ["unfinished"] * N)
    assert "kendall_tau" not in found and "first_from" not in found and found["identity_share"] == 0
    assert red_flags(found) == []


@given(st.integers(2, 8).flatmap(lambda size: st.tuples(st.permutations(range(size)), st.permutations(range(size)))))
def test_tau_is_that_of_scipy_over_the_ranks_of_the_items(pair):
    first, second = np.array(pair[0]), np.array(pair[1])
    expected = stats.kendalltau(np.argsort(first), np.argsort(second)).statistic
    assert kendall_tau(first[None], second[None])[0] == pytest.approx(expected)
    assert kendall_tau(first[None], first[None])[0] == 1
    assert kendall_tau(first[None], first[None, ::-1])[0] == -1


@given(st.integers(2, 7).flatmap(lambda size: st.permutations(range(size))))
def test_shapes_of_orders_against_their_definitions(order):
    size, orders = len(order), np.array([order])
    swaps = [[*range(i), i + 1, i, *range(i + 2, size)] for i in range(size - 1)]
    assert adjacent_swap_only(orders)[0] == (list(order) in swaps)
    assert reversed_incoming(orders)[0] == (list(order) == list(range(size))[::-1])
    assert identical_to_incoming(orders)[0] == (list(order) == sorted(order))


def test_lengths_that_drift_from_the_reference_and_along_the_file():
    sft, rl = RNG.integers(80, 120, 500), RNG.integers(80, 120, 500) + np.arange(500) // 10
    found = lengths(rl.tolist(), sft.tolist())
    assert found["shift"] == pytest.approx(rl.mean() - sft.mean())
    assert found["distance"] == pytest.approx(np.abs(np.sort(rl) - np.sort(sft)).mean())  # optimal transport on a line, equal sizes
    assert found["trend"] == pytest.approx(stats.spearmanr(range(500), rl).statistic) and found["trend"] > 0.7
    assert found["by_block"][0] == pytest.approx(rl[:50].mean()) and found["by_block"][-1] == pytest.approx(rl[450:].mean())
    assert found["quantiles"]["0.5"] == np.median(rl) and found["longest"] == rl.max()


def test_a_wider_spread_of_the_same_mean_is_a_distance_without_a_shift():
    found = lengths([10, 30] * 20, [20] * 40)
    assert (found["shift"], found["distance"], found["trend"]) == (0.0, 10.0, pytest.approx(stats.spearmanr(range(40), [10, 30] * 20)[0]))
    assert lengths([5, 5, 5])["trend"] == 0 and lengths([5])["by_block"] == [5.0] and "shift" not in lengths([5])


def test_a_drift_is_named_with_both_means():
    found = audited(HONEST) | {"lengths": {"reasoning": lengths([150] * 9, [100] * 9), "answer": lengths([100] * 9, [99] * 9)}}
    assert red_flags(found) == ["reasoning: 150.0 tokens on average, the reference 100.0"]


@pytest.mark.parametrize(
    ("completion", "reasoning", "expected"),
    [([5, 6, 9, 7, 1], True, 3), ([5, 6, 7], True, 3), ([7, 1], False, 0), ([9, 1], True, 1), ([], True, 0)],
)
def test_where_the_thought_ends(completion, reasoning, expected):
    assert thought_length(completion, 9, reasoning) == expected


@given(st.lists(st.integers(2, 6).flatmap(lambda n: st.permutations(range(n))), min_size=1, max_size=5))
def test_slates_of_unlike_length_are_audited_by_their_own_candidates(orders):
    sizes, wide = np.array([len(order) for order in orders]), padded_orders(orders, 8)
    expected = [stats.kendalltau(np.argsort(order), range(len(order))).statistic for order in orders]
    assert kendall_tau(wide, np.broadcast_to(np.arange(8), wide.shape), sizes).tolist() == pytest.approx(expected)
    assert reversed_incoming(wide, sizes).tolist() == [list(order) == list(range(len(order)))[::-1] for order in orders]
