"""Long slates in windows, with a ranker whose wishes are known, and with a model."""

from dataclasses import replace

import numpy as np
import pytest

from stages.shared.generation.base import Sampling
from stages.shared.generation.reranking.language_model import open_language_model
from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.slates.reranking.windows import Windows, rank_by_windows
from tests.stages.shared.generation.reranking.test_language_model import AT_ONCE, ENGINE, SLATES, folder
from tests.stages.shared.slates.test_windows import LONG

__all__ = ["folder"]
RNG = np.random.default_rng(3)
MANY = [replace(LONG, slate=number, candidates=RNG.permutation(1000)[:30].tolist()) for number in range(20)]


def by_item(slates):
    """Wants falling item numbers."""
    orders = np.array([np.argsort(-np.array(slate.candidates)) for slate in slates])
    count = len(slates)
    return Rankings(orders, [""] * count, ["t"] * count, [2] * count, [1] * count)


@pytest.mark.parametrize(("size", "step"), [(10, 5), (10, 3), (4, 1), (20, 10)])
def test_a_pass_brings_the_best_to_the_top_and_enough_passes_sort_all(size, step):
    """Of a ranker without error: what moves on is size - step candidates a pass, so these are the best of all."""
    wanted = by_item(MANY).orders
    found = rank_by_windows(MANY, lambda slates: [by_item(slates)], Windows(size, step, 1))
    assert (found.orders[:, : size - step] == wanted[:, : size - step]).all() and not (found.orders == wanted).all()
    assert (rank_by_windows(MANY, lambda slates: [by_item(slates)], Windows(size, step, -(-30 // (size - step)))).orders == wanted).all()
    asked = len(found.texts[0].split("\n\n"))
    assert found.reasoning_tokens == [2 * asked] * 20 and found.answer_tokens == [asked] * 20


def test_an_invalid_window_keeps_its_order_and_the_slate_has_its_fault():
    calls = []

    def ask(slates):
        calls.append([slate.candidates for slate in slates])
        right = by_item(slates)
        return [right if len(calls) > 1 else replace(right, orders=np.tile(np.arange(10), (20, 1)), faults=["unfinished"] * 20)]

    found = rank_by_windows(MANY, ask, Windows(10, 10, 1))
    assert found.faults == ["unfinished"] * 20 and not found.valid.any()
    assert (found.orders[:, 20:] == np.arange(20, 30)).all() and len(calls) == 3
    assert (np.sort(found.orders, axis=1) == np.arange(30)).all()


def test_a_model_answers_a_slate_longer_than_its_window(folder):
    long = [replace(slate, candidates=list(range(7)), bins=[slate.bins[0]] * 7, target_rank=6) for slate in SLATES]
    with open_language_model(folder, AT_ONCE, ENGINE, seed=0, threads=1, windows=Windows(3, 2, 2)) as model:
        [found] = model.answers(long, Sampling(40))
        drawn = model.answers(long, Sampling(40, 3.0, samples=3, seed=5))
        [short] = model.answers(SLATES, Sampling(40))
    assert found.valid.all() and (np.sort(found.orders, axis=1) == np.arange(7)).all()
    assert found.answer_tokens == [3 * 2 * (3 * 6 + 1)] * 3  # three windows, two passes, three SIDs of six tokens and an end each
    assert len({one.orders.tobytes() for one in drawn}) > 1
    assert short.orders.shape == (3, 3)
