"""A random model, asked in all the ways that the evaluation asks; constrained, so that it answers too."""

from dataclasses import replace

import numpy as np
import pytest

from stages.evaluate.models import ask_models, evenly_spaced
from stages.evaluate.params import EvaluateParams
from stages.shared.evaluation.rankers import MODELS, PRIMARY_MODEL, REFERENCE_MODEL
from stages.shared.generation.base import Sampling
from stages.shared.generation.params import EngineParams
from stages.shared.generation.reranking.language_model import open_language_model
from tests.stages.shared.slates.test_compact import SLATE, layout
from tests.support.tiny_models import tiny_folder

SLATES = [replace(SLATE, slate=i, candidates=[i, i + 1, i + 2], history=[7]) for i in range(3)]
ENGINE = EngineParams(batch_size=8)
LAYOUT, AT_ONCE = layout(), layout(answer="sids", reasoning=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("reasoning", [False, True])
def test_tokens_are_counted_on_either_side_of_the_think_block(folder, reasoning):
    with open_language_model(folder, LAYOUT if reasoning else AT_ONCE, ENGINE, seed=0, threads=1) as model:
        [found] = model.answers(SLATES, Sampling(80))
        if reasoning:
            assert all(a > 0 and a + b <= 80 for a, b in zip(found.reasoning_tokens, found.answer_tokens, strict=True))
        else:
            assert found.valid.all() and found.reasoning_tokens == [0] * 3 and found.answer_tokens == [3 * 6 + 1] * 3


def test_samples_are_one_judged_each_and_an_invalid_one_is_the_incoming_order(folder):
    with open_language_model(folder, AT_ONCE, ENGINE, seed=0, threads=1) as model:
        drawn = model.answers(SLATES, Sampling(40, 3.0, samples=4, seed=5))
        [free] = model.answers(SLATES, Sampling(12), constrained=False)
    assert len(drawn) == 4 and all(own.valid.all() for own in drawn) and len({own.orders.tobytes() for own in drawn}) > 1
    assert not free.valid.any() and (free.orders == np.arange(3)).all()
    part = drawn[0].at([2, 0])
    assert part.orders.tolist() == drawn[0].orders[[2, 0]].tolist() and part.texts == [drawn[0].texts[2], drawn[0].texts[0]]


def test_what_every_model_is_asked(folder):
    params = EvaluateParams(max_tokens=40, constrained=True, free_slates=2, shuffled_slates=2, repeats=3, repeat_slates=2, engine=ENGINE)
    found = ask_models(SLATES, AT_ONCE, params, dict.fromkeys(MODELS, folder), reserved=SLATES[1:])
    assert [own.texts for own in found.reserved.values()] == [own.texts[1:] for own in found.greedy.values()]
    assert list(found.greedy) == list(found.free) == list(MODELS) and set(found.repeated) == {PRIMARY_MODEL, REFERENCE_MODEL}
    assert found.repeat_rows == [0, 2] and all(len(own) == 3 and len(own[0].orders) == 2 for own in found.repeated.values())
    assert (
        [len(own.orders) for own in found.free.values()] == [2] * len(MODELS)
        and found.shuffled is not None
        and found.shuffled[0].shape == found.shuffled[1].orders.shape == (2, 3)
    )
    assert found.invocations.rows == []
    none = ask_models(
        SLATES, AT_ONCE, params.model_copy(update={"repeats": 0, "free_slates": 0, "shuffled_slates": 0}), dict.fromkeys(MODELS, folder)
    )
    assert (none.repeated, none.free, none.shuffled, none.reserved) == ({}, {}, None, {})
    assert none.greedy["rl"].texts == found.greedy["rl"].texts


def test_what_was_asked_is_kept_on_request(folder):
    params = EvaluateParams(max_tokens=40, free_slates=0, shuffled_slates=0, repeats=2, repeat_slates=2, threads=2, engine=ENGINE)
    kept = ask_models(SLATES, AT_ONCE, params.model_copy(update={"keep_invocations": True}), dict.fromkeys(MODELS, folder))
    rows = kept.invocations.rows
    assert list(dict.fromkeys(row.model for row in rows)) == list(MODELS)
    sft = [row for row in rows if row.model == REFERENCE_MODEL]
    assert [(row.slate, row.kind, row.sample) for row in sft] == [
        *((slate, "greedy", 0) for slate in (0, 1, 2)),
        *((slate, "repeated", sample) for slate in (0, 2) for sample in (0, 1)),
    ]
    assert [row.completion for row in sft[:3]] == kept.greedy[REFERENCE_MODEL].texts
    assert {row.finish for row in rows} <= {"stop", "length"} and all(row.prompt and row.seconds > 0 and row.prompt_tokens for row in rows)


def test_models_asked_side_by_side_answer_as_one_after_another(folder):
    params = EvaluateParams(max_tokens=40, constrained=True, free_slates=3, shuffled_slates=2, repeats=2, repeat_slates=2, engine=ENGINE)
    folders = dict.fromkeys(MODELS, folder)
    alone, together = (ask_models(SLATES, AT_ONCE, params.model_copy(update={"threads": threads}), folders) for threads in (1, 3))
    for kind in ("greedy", "free"):
        one, other = getattr(alone, kind), getattr(together, kind)
        assert list(one) == list(other) and all(one[name].texts == other[name].texts for name in one)
    assert list(alone.repeated) == list(together.repeated)
    assert all(a.texts == b.texts for name in alone.repeated for a, b in zip(alone.repeated[name], together.repeated[name], strict=True))
    assert alone.shuffled is not None and together.shuffled is not None
    assert (alone.shuffled[0] == together.shuffled[0]).all() and alone.shuffled[1].texts == together.shuffled[1].texts


@pytest.mark.parametrize(("length", "count", "places"), [(5, 2, [0, 4]), (5, 9, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8]), (1, 4, [0])])
def test_places_are_spread_from_end_to_end(length, count, places):
    assert evenly_spaced(length, count) == places


def test_a_model_that_answers_at_once_is_asked_so_beside_others_that_reason(folder):
    params = EvaluateParams(max_tokens=80, constrained=True, free_slates=0, shuffled_slates=0, repeats=0, engine=ENGINE)
    found = ask_models(SLATES, LAYOUT, params, {"sft": folder, "distil": folder, "rl": folder}, at_once=["distil"])
    assert list(found.greedy) == ["sft", "distil", "rl"]
    assert found.greedy["distil"].reasoning_tokens == [0] * 3 and found.greedy["distil"].valid.all()
    assert all(count > 0 for count in found.greedy["sft"].reasoning_tokens)
