from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.shared.core.errors import StageError
from stages.shared.recsys import lambdamart
from stages.shared.slates.candidate_features import FEATURES
from stages.shared.slates.layouts.chat import ChatLayout
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.slate import RELEVANCE_LEVELS
from stages.traces.out_of_time import check_earlier, feature_array, label_by_latest, level_edges, score_out_of_time, time_folds
from tests.support.traces_data import CATALOG, LAYOUT, SCORER, make_slates, scored_slates


@given(steps=st.lists(st.integers(0, 2), min_size=8, max_size=60), count=st.integers(2, 5))
def test_folds_are_in_time_and_never_share_a_timestamp(steps, count):
    times = np.cumsum(steps)
    try:
        folds = time_folds(times.tolist(), count)
    except StageError:
        return
    assert sorted(set(folds)) == list(range(count))
    for b in range(1, count):
        assert times[folds < b].max() < times[folds == b].min()


def test_folds_are_about_equal():
    assert np.bincount(time_folds(list(range(10)), 4)).tolist() == [2, 3, 2, 3]


def test_too_few_times_is_an_error():
    with pytest.raises(StageError, match=r"do not cut into 3 folds; lower traces\.time_folds"):
        time_folds([5, 5, 5, 6], 3)


def test_each_fold_is_scored_from_the_folds_before_alone():
    slates, scored = make_slates(), scored_slates(folds=3)
    assert [one.slate for one in scored] == slates[100:]
    features, targets = feature_array(slates, FEATURES), np.array([slate.target_rank for slate in slates])
    for fold, known, labelled in ((1, slice(0, 100), slice(100, 200)), (2, slice(0, 200), slice(200, 300))):
        boosters = lambdamart.fit_ensemble(features[known], targets[known], 7, 1, SCORER, 2)
        of_fold = [one for one in scored if one.fold == fold]
        np.testing.assert_array_equal([one.scores for one in of_fold], lambdamart.mean_scores(boosters, features[labelled]))


def test_the_future_changes_nothing():
    slates = make_slates()
    changed = [*slates[:200], *(replace(slate, target_rank=0) for slate in slates[200:])]
    for before, after in zip(*(score_out_of_time(each, 3, LAYOUT, 7, 1, SCORER) for each in (slates, changed)), strict=True):
        np.testing.assert_array_equal(before.scores, after.scores)
        np.testing.assert_array_equal(before.edges, after.edges)


def test_a_scorer_from_the_future_is_a_leak():
    check_earlier(np.array([1, 5]), np.array([5, 6]), 1)
    with pytest.raises(StageError, match="leak in traces: the scorer of fold 2 was fitted on a slate of time 7"):
        check_earlier(np.array([1, 7]), np.array([5, 6]), 2)
    with pytest.raises(StageError, match=r"leak in traces|do not cut"):
        score_out_of_time(make_slates()[::-1], 3, LAYOUT, 7, 1, SCORER)


def test_noise_free_rank_keeps_the_incoming_order_of_equals():
    one = scored_slates()[0]
    for scores, target, rank in (([3, 1, 2, 0, 0], 0, 0), ([3, 1, 2, 0, 0], 4, 4), ([1, 1, 1, 1, 1], 2, 2), ([0, 2, 2, 1, 9], 2, 2)):
        moved = replace(one, scores=np.array(scores, float), slate=replace(one.slate, target_rank=target))
        assert moved.noise_free_rank == rank and moved.unseen_rank == replace(moved, scores=one.scores).noise_free_rank


@pytest.mark.parametrize(
    ("scores", "places"), [([3, 1, 2, 0, 0], [0, 2, 1, 3.5, 3.5]), ([1, 1, 1, 1, 1], [2] * 5), ([0, 2, 2, 1, 9], [4, 1.5, 1.5, 3, 0])]
)
def test_support_is_the_mean_place_of_equals(scores, places):
    one = replace(scored_slates()[0], unseen_scores=np.array(scores, float))
    assert [replace(one, slate=replace(one.slate, target_rank=target)).support for target in range(5)] == places


def test_labels_of_the_latest_scorer_are_one_function_of_the_features():
    slates, by_fold = make_slates(), scored_slates(folds=3)
    labelled = label_by_latest(by_fold, slates, LAYOUT, 7, 1, SCORER)
    features = feature_array(slates, FEATURES)
    boosters = lambdamart.fit_ensemble(features, np.array([slate.target_rank for slate in slates]), 7, 1, SCORER, 2)
    everything = lambdamart.mean_scores(boosters, features)
    np.testing.assert_array_equal([one.scores for one in labelled], everything[100:])
    for one, before in zip(labelled, by_fold, strict=True):
        np.testing.assert_array_equal(one.edges, level_edges(everything, RELEVANCE_LEVELS))
        np.testing.assert_array_equal(one.unseen_scores, before.scores)
        assert (one.slate, one.fold, one.unseen_rank, one.spread) == (before.slate, before.fold, before.noise_free_rank, everything.std())
    shown = labelled[0].shown_as([4, 3, 2, 1, 0])
    np.testing.assert_array_equal(shown.unseen_scores, labelled[0].unseen_scores[::-1])


def test_a_slate_of_one_candidate_is_an_error():
    slates = make_slates()
    slates[3] = replace(slates[3], bins=slates[3].bins[:1])
    with pytest.raises(StageError, match="slate 3 has 1 candidates, expected 5"):
        feature_array(slates, FEATURES)
    slates[3] = replace(slates[3], candidates=slates[3].candidates[:1])
    with pytest.raises(StageError, match="slate 3 has 1 candidates, expected 2"):
        feature_array(slates[3:], FEATURES)


def test_a_scorer_goes_by_what_the_trace_quotes():
    """Equal quotes, equal relevances, whatever the rest of the evidence says; nothing is owed to a feature that is not quoted."""
    short = ChatLayout(CATALOG, PromptParams(layout="chat", cited=["co", "tr"]))
    slates = make_slates()
    scored = label_by_latest(score_out_of_time(slates, 3, short, 7, 1, SCORER, explained=True), slates, short, 7, 1, SCORER, explained=True)
    by_quote: dict[tuple[int, ...], set[float]] = {}
    for one in scored:
        assert (one.contributions[:, 2:] == 0).all() and one.contributions[:, :2].any()
        for bins, score in zip(one.slate.bins, one.scores.tolist(), strict=True):
            by_quote.setdefault(tuple(bins[:2]), set()).add(score)
    assert len(by_quote) > 20 and {len(scores) for scores in by_quote.values()} == {1}
    assert len({score for one in scored_slates() for score in one.scores.tolist()}) > len(by_quote), "by all six they differ"


def test_a_teacher_that_knows_less_scores_by_what_it_knows():
    """As a scorer whose other features are constant; one that no slate has is named."""
    slates, knows = make_slates(), SCORER.model_copy(update={"features": ["co", "po"]})
    features, targets = feature_array(slates, knows.features), np.array([slate.target_rank for slate in slates])
    assert not np.nan_to_num(features)[:, :, [1, 2, 4, 5]].any()
    boosters = lambdamart.fit_ensemble(features[:200], targets[:200], 7, 1, SCORER, 2)
    of_fold = [one for one in score_out_of_time(slates, 3, LAYOUT, 7, 1, knows) if one.fold == 2]
    np.testing.assert_array_equal([one.scores for one in of_fold], lambdamart.mean_scores(boosters, features[200:]))
    with pytest.raises(StageError, match=r"traces\.scorer\.features: brand: the slates have co, tr"):
        score_out_of_time(slates, 3, LAYOUT, 7, 1, knows.model_copy(update={"features": ["brand"]}))
