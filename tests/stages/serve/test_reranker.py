"""The reranker on a small finished run: against the slates that the stage `retrieve` made, and each rule of a request."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from stages.retrieve.retrievers.retriever import fit
from stages.serve.initial_scores import open_scorer
from stages.serve.requests import RankRequest
from stages.serve.reranker import open_reranker
from stages.serve.slate_maker import SlateMaker
from stages.shared.core.errors import StageError
from stages.shared.core.schemas import SLATES, read_table
from stages.shared.generation.base import Sampling
from stages.shared.slates.candidate_features import read_candidate_features
from stages.shared.slates.slate import load_slates
from tests.support.logged_slates import given_params
from tests.support.retrieve_project import PARAMS, N, interactions, own_items


@pytest.fixture(scope="module")
def tables(finished_run):
    folder = finished_run / "data/retrieve"
    return read_table(folder / "slates.parquet", SLATES), read_candidate_features(folder / "candidate_features.parquet")


@pytest.fixture(scope="module")
def test_slates(tables):
    return sorted(load_slates(*tables, "test"), key=lambda slate: slate.slate)


@pytest.fixture(scope="module")
def scores(tables):
    return dict(tables[0].select("slate", "scores").iter_rows())


def test_requests_become_the_slates_that_retrieve_made(reranker, test_slates, scores):
    made = reranker.maker.slates([RankRequest(slate.history, slate.candidates, scores[slate.slate]) for slate in test_slates])
    assert [(s.history, s.candidates, s.bins, s.features) for s in made] == [
        (s.history, s.candidates, s.bins, s.features) for s in test_slates
    ]


def test_the_runs_own_retriever_scores_what_brings_no_scores(reranker, tables):
    """Of whole histories, which the slates do not hold."""
    rows = tables[0].filter(pl.col("split") == "test").head(20)
    past = [own_items(user)[:position] for user, position in rows.select("user", "position").iter_rows()]
    found = reranker.maker.scorer.scores(past, np.array(rows["candidates"].to_list()))
    assert np.allclose(found, np.array(rows["scores"].to_list()), atol=1e-5)


def test_the_orders_are_those_of_the_model_that_evaluate_asks(reranker, test_slates, scores):
    [asked] = reranker.model.answers(test_slates, Sampling(reranker.params.max_tokens, seed=reranker.params.seed), True)
    results = reranker.rank([RankRequest(slate.history, slate.candidates, scores[slate.slate]) for slate in test_slates])
    assert asked.valid.all() and [list(result.order) for result in results] == asked.orders.tolist()
    assert len({result.order for result in results}) > 1
    assert all(result.reasoning and result.reasoning in text for result, text in zip(results, asked.texts, strict=True))


@pytest.mark.parametrize("mode", ["reranker", "one_pass"])
def test_each_rule_of_a_request(mode, request):
    asked = request.getfixturevalue(mode)
    history = own_items(3)[:6]
    requests = [
        RankRequest(history, [20, None, 21, 20, None, 22]),  # shorter than a slate, strangers, a duplicate
        RankRequest(history, [20]),
        RankRequest(history, [None, 20]),
        RankRequest(history, [None, None]),
        RankRequest([], [20, 21]),
        RankRequest([], [20, 21], known_user=False),
        RankRequest(history, list(range(8, 24))),  # longer than a slate: windows
        RankRequest(history, [20, 21, 22], [0.5, 0.5, 2.0]),
    ]
    results = asked.rank(requests)
    assert [result.fallback for result in results] == ["", "", "", "unknown_items", "no_history", "unknown_user", "", ""]
    for one, result in zip(requests, results, strict=True):
        assert sorted(result.order) == list(range(len(one.items)))
        assert list(result.scores) == sorted(result.scores, reverse=True) and len(result.scores) == len(one.items)
    first = results[0].order
    assert first[-2:] == (1, 4) and first.index(3) == first.index(0) + 1
    assert results[2].order == (1, 0)
    assert all(result.order == tuple(range(len(result.order))) for result in results if result.fallback)
    if mode == "one_pass":
        assert results[0].scores[-2:] == (0.0, 0.0) and sum(results[7].scores) == pytest.approx(1)
        assert results[0].scores[first.index(0)] == results[0].scores[first.index(3)]


def test_an_invalid_answer_is_the_incoming_order_and_says_why(reranker, monkeypatch):
    monkeypatch.setattr(reranker.model.engine, "batch_size", 4)
    monkeypatch.setitem(reranker.__dict__, "params", reranker.params.model_copy(update={"constrained": False, "max_tokens": 16}))
    [result] = reranker.rank([RankRequest([3, 4], [20, 21, 22])])
    assert (result.order, result.fallback) == ((0, 1, 2), "invalid_answer") and result.fault in ("unfinished", "malformed", "outside")


def test_an_engine_that_fails_costs_no_order_and_one_bad_request_only_itself(reranker, monkeypatch):
    real = reranker.model.engine.generate

    def fragile(prompts, *rest):
        if any(len(prompt) == longest for prompt in prompts):
            raise RuntimeError("out of memory")
        return real(prompts, *rest)

    slates = reranker.maker.slates([RankRequest([3], [20, 21]), RankRequest([3, 4, 5, 6], [20, 21])])
    longest = max(map(len, reranker.model.encoded.prompts(slates)))
    monkeypatch.setattr(reranker.model.engine, "generate", fragile)
    good, bad = reranker.rank([RankRequest([3], [20, 21]), RankRequest([3, 4, 5, 6], [20, 21])])
    assert good.fallback == "" and (bad.fallback, bad.order) == ("engine", (0, 1))


def test_past_its_time_a_long_slate_falls_back_and_the_short_ones_have_been_ranked(reranker, monkeypatch):
    """Nobody waits any more, and whoever comes next does."""
    now, real = [0.0], reranker.model.engine.generate

    def slow(*arguments):
        now[0] += 1.0
        return real(*arguments)

    monkeypatch.setattr("stages.serve.reranker.time.monotonic", lambda: now[0])
    monkeypatch.setattr(reranker.model.engine, "generate", slow)
    long, short = RankRequest(own_items(3), list(range(15))), RankRequest(own_items(3), [20, 21, 22])
    results = reranker.rank([long, short], 2.5)
    assert [result.fallback for result in results] == ["time_budget", ""] and results[0].order == tuple(range(15))
    assert now[0] == 3.0, "the short one, and two windows of the long one"
    assert reranker.rank([long])[0].fallback == "" and now[0] > 6, "without a limit, however long it takes"


def test_a_retriever_that_keeps_no_scores_is_said(finished_run, reranker, monkeypatch):
    language_model = {"model": "language_model", "reads": "data/midtrain/model"}
    monkeypatch.setitem(reranker.__dict__, "maker", SlateMaker.read(PARAMS.model_copy(update=language_model), interactions()))
    bare, given = reranker.rank([RankRequest([3, 4], [20, 21]), RankRequest([3, 4], [20, 21], [1.0, 0.0])])
    assert (bare.fallback, given.fallback) == ("no_scores", "")


@pytest.mark.parametrize("model", ["sasrec", "item_knn", "popularity"])
def test_each_retriever_scores_candidates_as_it_found_them(tmp_path, model):
    params = PARAMS.model_copy(update={"model": model, "epochs": 1})
    fitted, _ = fit(params, interactions().filter(pl.col("split") == "base"), N, seed=0)
    fitted.save(tmp_path)
    histories = [own_items(user)[:length] for user, length in [(0, 3), (1, 8), (2, 1), (3, 9)]]
    items_NK, scores_NK = fitted.top_k(histories, histories, 6)
    assert np.allclose(open_scorer(params, N, tmp_path).scores(histories, items_NK), scores_NK, atol=1e-5)


def test_logged_slates_without_scores_are_scored_by_place(tmp_path):
    places = given_params(), given_params(order="shuffled"), given_params(scores="score")
    by_place, nothing, logged = (open_scorer(params, N, tmp_path) for params in places)
    candidates_NK = np.array([[5, 3, 1], [2, 4, 6]])
    assert by_place.scores([[0], [1]], candidates_NK).tolist() == [[0, -1, -2]] * 2
    assert nothing.scores([[0], [1]], candidates_NK).tolist() == [[0, 0, 0]] * 2 and logged is None


def test_one_pass_ranks_by_the_first_letter(one_pass, reranker, test_slates):
    """Beside a whole forward pass without padding, slate by slate."""
    rankings, scores_NK = one_pass.model.rank(test_slates[:7])
    encoded, model = one_pass.model.encoded, one_pass.model.model
    for slate, order, scores in zip(test_slates[:7], rankings.orders, scores_NK, strict=True):
        [prompt], [names] = encoded.prompts([slate]), encoded.names([slate])
        logits = model(model.base_model.embed_tokens.weight.new_tensor([prompt]).long()).logits[0, -1]
        expected = logits[[name[0] for name in names]].softmax(0)
        assert np.allclose(scores, expected.detach().numpy(), atol=1e-5)
        assert order.tolist() == np.argsort(-expected.detach().numpy(), kind="stable").tolist()
        assert encoded.tokenizer.decode(prompt).endswith("<think></think>")


def test_adaptive_thinks_only_where_one_pass_is_unsure(reranker, one_pass, test_slates, scores):
    requests = [RankRequest(slate.history, slate.candidates[:7], scores[slate.slate][:7]) for slate in test_slates[:12]]
    requests.append(RankRequest([3, 4], list(range(8, 24))))  # windows: always thought about
    quick, slow = one_pass.rank(requests), reranker.rank(requests)
    found = sorted(result.scores[0] - result.scores[1] for result in quick[:-1])
    with open_reranker(mode="adaptive") as adaptive:
        assert adaptive.first.model is adaptive.model.engine.model, "the weights are in memory once"
        for margin, sure in [(0.0, 12), ((found[5] + found[6]) / 2, 6), (1.1, 0)]:
            results = replace(adaptive, margin=margin).rank(requests)
            ways = [result.way for result in results]
            assert ways.count("one-pass") == sure and ways[-1] == "reasoning"
            for result, fast, thought in zip(results, quick, slow, strict=True):
                expected = fast if result.way == "one-pass" else thought
                assert (result.order, result.reasoning) == (expected.order, expected.reasoning)
                assert result.way == "reasoning" or result.scores == pytest.approx(fast.scores)


def test_a_mode_that_there_is_not_is_named(finished_run):
    with pytest.raises(StageError, match="mode quick: one of reasoning, one-pass, adaptive"), open_reranker(mode="quick"):
        pass
