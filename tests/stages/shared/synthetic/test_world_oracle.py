"""The world's formula and the Bayes order, against plain loops, simulation and all permutations."""

import math
import random
from itertools import permutations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from stages.shared.core.errors import StageError
from stages.shared.core.schemas import INTERACTIONS
from stages.shared.synthetic.world import World, expected, save_no_world, share_of_headroom, whole_histories

SEEDS = st.integers(0, 2**32 - 1)


def tiny_world(seed: int, items: int = 8, types: int = 3, categories: int = 3, brands: int = 2, memory: int = 2, users: int = 4) -> World:
    rng = np.random.default_rng(seed)
    return World(
        category_I=rng.integers(categories, size=items).astype(np.int32),
        brand_I=rng.integers(brands, size=items).astype(np.int32),
        popularity_I=rng.normal(size=items),
        taste_TC=rng.normal(size=(types, categories)),
        taste_TB=rng.normal(size=(types, brands)),
        follow_CC=rng.normal(size=(categories, categories)),
        loyalty_CC=rng.normal(size=(categories, categories)),
        lag_M=rng.random(memory),
        prior_T=rng.dirichlet(np.ones(types)),
        type_U=rng.integers(types, size=users).astype(np.int32),
    )


def histories_of(world: World, seed: int, count: int = 5) -> list[list[int]]:
    rng, items = np.random.default_rng(seed), len(world.category_I)
    return [rng.permutation(items)[: rng.integers(items)].tolist() for _ in range(count)]


def plain_weight(world: World, t: int, history: list[int], j: int) -> float:
    """The formula of docs/synthetic-world.md, a term at a time."""
    log = world.popularity_I[j] + world.taste_TC[t][world.category_I[j]] + world.taste_TB[t][world.brand_I[j]]
    for lag, before in zip(world.lag_M, reversed(history), strict=False):
        pair = world.category_I[before], world.category_I[j]
        log += lag * world.follow_CC[pair]
        if world.brand_I[before] == world.brand_I[j]:
            log += lag * world.loyalty_CC[pair]
    return math.exp(log)


def plain_next(world: World, t: int, history: list[int]) -> list[float]:
    items = range(len(world.category_I))
    weights = [0.0 if j in history else plain_weight(world, t, history, j) for j in items]
    return [weight / sum(weights) for weight in weights]


def plain_posterior(world: World, history: list[int]) -> list[float]:
    joint = [
        prior * math.prod(plain_next(world, t, history[:n])[item] for n, item in enumerate(history))
        for t, prior in enumerate(world.prior_T)
    ]
    return [value / sum(joint) for value in joint]


def plain_predictive(world: World, history: list[int]) -> list[float]:
    posterior = plain_posterior(world, history)
    given_type = [plain_next(world, t, history) for t in range(len(posterior))]
    return [sum(p * own[j] for p, own in zip(posterior, given_type, strict=True)) for j in range(len(world.category_I))]


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 3))
def test_probabilities_are_those_of_the_plain_formula(seed, memory):
    world = tiny_world(seed, memory=memory)
    histories = histories_of(world, seed)
    everything = np.tile(np.arange(8), (len(histories), 1))
    types = np.random.default_rng(seed).integers(3, size=len(histories))
    known = np.exp(world.log_probabilities(histories, everything, types))
    unknown = np.exp(world.log_probabilities(histories, everything))
    posterior = np.exp(world.posterior(histories))
    for n, history in enumerate(histories):
        np.testing.assert_allclose(known[n], plain_next(world, types[n], history), rtol=1e-9)
        np.testing.assert_allclose(posterior[n], plain_posterior(world, history), rtol=1e-9)
        np.testing.assert_allclose(unknown[n], plain_predictive(world, history), rtol=1e-9)
    np.testing.assert_allclose(known.sum(axis=1), 1)
    np.testing.assert_allclose(unknown.sum(axis=1), 1)


def test_three_items_by_hand():
    """Shampoo 0 and conditioner 1 of one brand, conditioner 2 of another; two types, who like one brand each twice as much."""
    log = math.log
    world = World(
        category_I=np.array([0, 1, 1]),
        brand_I=np.array([0, 0, 1]),
        popularity_I=np.array([log(3), 0.0, 0.0]),
        taste_TC=np.zeros((2, 2)),
        taste_TB=np.array([[log(2), 0], [0, log(2)]]),
        follow_CC=np.array([[0, log(5)], [0, 0]]),
        loyalty_CC=np.array([[0, log(7)], [0, 0]]),
        lag_M=np.array([1.0]),
        prior_T=np.array([0.25, 0.75]),
        type_U=np.array([0]),
    )
    slate = np.array([[2, 1, 0]])
    # Weights: type 0 has 6, 2, 1; type 1 has 3, 1, 2.
    np.testing.assert_allclose(np.exp(world.log_probabilities([[]], slate, np.array([0]))), [[1 / 9, 2 / 9, 6 / 9]])
    np.testing.assert_allclose(np.exp(world.posterior([[0]])), [[(1 / 4 * 6 / 9) / (1 / 4 * 6 / 9 + 3 / 4 * 3 / 6), 9 / 13]])
    # After the shampoo: 2 * 5 * 7 against 1 * 5, and 1 * 5 * 7 against 2 * 5.
    np.testing.assert_allclose(np.exp(world.log_probabilities([[0]], slate, np.array([1]))), [[10 / 45, 35 / 45, 0]])
    np.testing.assert_allclose(
        np.exp(world.log_probabilities([[0]], slate)), [[4 / 13 * 5 / 75 + 9 / 13 * 10 / 45, 4 / 13 * 70 / 75 + 9 / 13 * 35 / 45, 0]]
    )
    assert world.bayes_order([[0]], slate).tolist() == [[1, 0, 2]]


def test_frequencies_of_a_simulation_that_knows_no_posterior():
    """People drawn from the prior take three items; of those who took 1 and then 4, what came third?"""
    world = tiny_world(13, items=5)
    draw = random.Random(5)
    third = np.zeros(5)
    wanted = [1, 4]
    weights = {  # unmasked: an item that was taken is drawn again, until another comes
        (t, tuple(history)): [plain_weight(world, t, history, j) for j in range(5)] for t in range(3) for history in ([], [1], [1, 4])
    }
    for _ in range(30_000):
        t = draw.choices(range(3), world.prior_T)[0]
        history: list[int] = []
        for step in range(3):
            while (item := draw.choices(range(5), weights[t, tuple(history)])[0]) in history:
                pass
            if step < 2 and item != wanted[step]:
                break
            history.append(item)
        if len(history) == 3:
            third[history[2]] += 1
    chances = np.exp(world.log_probabilities([wanted], np.arange(5)[None]))[0]
    assert third.sum() > 1000 and third[wanted].sum() == 0
    others = [0, 2, 3]
    assert chisquare(third[others], chances[others] * third.sum()).pvalue > 1e-3
    unread = sum(prior * np.array(plain_next(world, t, wanted)) for t, prior in enumerate(world.prior_T))
    assert chisquare(third[others], unread[others] * third.sum()).pvalue < 1e-6  # the history says something of the type


NDCG5 = np.array([1 / math.log2(rank + 2) if rank < 5 else 0.0 for rank in range(6)])
RECALL1 = np.array([1.0, 0, 0, 0, 0, 0])
MRR = 1 / np.arange(1.0, 7)


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.booleans())
def test_no_permutation_is_better_than_the_bayes_order(seed, type_known):
    world = tiny_world(seed, items=9)
    history = np.random.default_rng(seed).permutation(9)[:3].tolist()
    slate = [item for item in range(9) if item not in history]
    types = np.array([seed % 3]) if type_known else None
    plain = plain_next(world, seed % 3, history) if type_known else plain_predictive(world, history)
    target = np.array([plain[item] for item in slate])
    best = world.bayes_order([history], np.array([slate]), types)[0]
    for value in (NDCG5, RECALL1, MRR):
        reached = max(target[list(order)] @ value for order in permutations(range(6)))
        assert target[best] @ value == pytest.approx(reached, rel=1e-9)


def test_ties_keep_the_incoming_order():
    world = tiny_world(1)
    same = World(**{**vars(world), "popularity_I": np.zeros(8), "taste_TC": np.zeros((3, 3)), "taste_TB": np.zeros((3, 2))})
    slate = np.array([[5, 3, 7, 1]])
    assert same.bayes_order([[]], slate).tolist() == [[0, 1, 2, 3]]


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_many_histories_at_once_are_as_one_by_one(seed):
    """Beginnings of one another, repeats and strangers, in any order."""
    world = tiny_world(seed, items=6)
    rng = np.random.default_rng(seed)
    whole = [rng.permutation(6).tolist() for _ in range(3)]
    histories = [own[: rng.integers(7)] for own in whole * 4]
    slates = rng.integers(6, size=(12, 3))
    together = world.log_probabilities(histories, slates)
    apart = np.concatenate([world.log_probabilities([history], slate[None]) for history, slate in zip(histories, slates, strict=True)])
    np.testing.assert_allclose(together, apart, rtol=1e-10)
    np.testing.assert_allclose(
        world.posterior(histories), np.concatenate([world.posterior([h]) for h in histories]), rtol=1e-10, atol=1e-12
    )


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_expected_metric_is_the_mean_over_possible_targets(seed):
    world = tiny_world(seed, items=9)
    rng = np.random.default_rng(seed)
    history = [int(rng.integers(3))]
    slate = 3 + rng.permutation(6)
    order = rng.permutation(6)
    chances = world.chances([history], slate[None])
    plain = plain_predictive(world, history)
    by_hand = sum(plain[slate[place]] * NDCG5[rank] for rank, place in enumerate(order)) / sum(plain[item] for item in slate)
    assert expected(NDCG5, order[None], chances)[0] == pytest.approx(by_hand, rel=1e-9)
    best = world.bayes_order([history], slate[None])
    assert expected(NDCG5, order[None], chances)[0] <= expected(NDCG5, best, chances)[0] + 1e-12


def test_share_of_headroom():
    assert share_of_headroom([1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]) == 0.5
    assert share_of_headroom(0.3, 0.4, 0.8) == pytest.approx(-0.25)
    assert share_of_headroom([0.2, 0.4], [0.2, 0.4], [0.5, 0.3]) == 0.0
    assert share_of_headroom(0.6, 0.5, 0.5) is None and share_of_headroom(0.6, 0.5, 0.4) is None


def test_whole_histories_end_before_the_position():
    rows = [(0, 4, 0), (0, 2, 1), (0, 9, 2), (3, 1, 0), (3, 4, 1)]
    table = pl.DataFrame([(user, item, position, 0, "base") for user, item, position in rows], schema=INTERACTIONS, orient="row")
    got = whole_histories(table, np.array([3, 0, 0]), pl.Series([1, 2, 0]))
    assert [own.tolist() for own in got] == [[1], [4, 2], []]


def test_a_world_comes_back_as_it_was_saved(tmp_path):
    world = tiny_world(2)
    world.save(tmp_path / "world.safetensors")
    again = World.load(tmp_path / "world.safetensors")
    assert again is not None
    slate = np.array([[1, 2, 3]])
    assert (again.log_probabilities([[0, 5]], slate) == world.log_probabilities([[0, 5]], slate)).all()
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "world.safetensors").read_bytes()
    save_no_world(tmp_path / "none.safetensors")
    assert World.load(tmp_path / "none.safetensors") is None


@pytest.mark.parametrize("content", [b"", b"x" * 50, b'(\x00\x00\x00\x00\x00\x00\x00{"__metadata__":{"world":"synthetic"}}  '])
def test_a_file_that_is_no_world_is_named(tmp_path, content):
    path = tmp_path / "world.safetensors"
    with pytest.raises(StageError, match=r"world\.safetensors: no such file.*gr2 run ingest"):
        World.load(path)
    path.write_bytes(content)
    with pytest.raises(StageError, match=r"world\.safetensors: .*rerun: gr2 run ingest"):
        World.load(path)


@pytest.mark.parametrize("history", [[1, 2, 1], [0, 8], [-1]])
def test_a_history_from_elsewhere_is_refused(history):
    with pytest.raises(StageError, match=r"history 1 cannot come from this world"):
        tiny_world(0).posterior([[0], history])
