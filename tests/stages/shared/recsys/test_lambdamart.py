import numpy as np
import pytest

from stages.shared.core.errors import StageError
from stages.shared.recsys import lambdamart
from stages.shared.recsys.lambdamart_params import LambdaMartParams

QUICK = LambdaMartParams(rounds=30, min_leaf=20)


def made_up(n=300, k=5, seed=0):
    """Feature 0 says where the target is (with noise), feature 1 is noise alone."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, k, 2)).astype(np.float32)
    target = rng.integers(k, size=n)
    features[np.arange(n), target, 0] += 1.5
    return features, target


def test_learns_the_feature_that_matters_and_says_so():
    features, target = made_up()
    booster = lambdamart.fit(features, target, 7, 1, QUICK)
    later, later_target = made_up(seed=1)
    scores = lambdamart.scores(booster, later)
    assert scores.shape == (300, 5)
    assert (scores.argmax(axis=1) == later_target).mean() > 0.5  # a guess: 0.2
    reasons = np.abs(lambdamart.contributions(booster, later)).mean(axis=(0, 1))
    assert reasons[0] > 5 * reasons[1]


def test_contributions_add_up_to_the_score():
    features, target = made_up()
    booster = lambdamart.fit(features, target, 7, 1, QUICK)
    rest = lambdamart.scores(booster, features) - lambdamart.contributions(booster, features).sum(axis=-1)
    np.testing.assert_allclose(rest, rest[0, 0], atol=1e-6)  # what is left is one constant


def test_same_seed_same_trees():
    features, target = made_up()
    first, second = (lambdamart.fit(features, target, 7, 1, QUICK).model_to_string() for _ in range(2))
    assert first == second
    assert lambdamart.fit(features, target, 8, 1, LambdaMartParams(rounds=30, min_leaf=20, feature_share=0.5)).model_to_string() != first


@pytest.mark.parametrize(
    "change", [{"rounds": 9}, {"learning_rate": 0.3}, {"leaves": 3}, {"min_leaf": 60}, {"l2": 50.0}, {"feature_share": 0.5}]
)
def test_every_parameter_changes_the_scores(change):
    features, target = made_up()
    usual = lambdamart.scores(lambdamart.fit(features, target, 7, 1, QUICK), features)
    changed = lambdamart.scores(lambdamart.fit(features, target, 7, 1, QUICK.model_copy(update=change)), features)
    assert not np.array_equal(usual, changed)


def test_nothing_to_split_on_is_an_error():
    with pytest.raises(StageError, match="nothing to split on in 30 slates"):
        lambdamart.fit(np.zeros((30, 4, 2), np.float32), np.zeros(30, int), 7, 1, QUICK)


def test_an_ensemble_is_the_mean_of_fits_with_following_seeds():
    features, target = made_up()
    params = QUICK.model_copy(update={"feature_share": 0.5})
    mean = lambdamart.mean_scores(lambdamart.fit_ensemble(features, target, 7, 1, params, 3), features)
    members = [lambdamart.scores(lambdamart.fit(features, target, seed, 1, params), features) for seed in (7, 8, 9)]
    np.testing.assert_allclose(mean, (members[0] + members[1] + members[2]) / 3, rtol=1e-12)
    assert not np.array_equal(members[0], members[1])


def test_slates_of_unlike_length_and_grades():
    """Grade 2 where feature 0 is highest, 1 where it is second: what comes first is wanted most, and places without a candidate last."""
    rng = np.random.default_rng(2)
    features = rng.normal(size=(400, 6, 2)).astype(np.float32)
    sizes = rng.integers(3, 7, 400)
    features[np.arange(6) >= sizes[:, None]] = np.nan
    best = np.argsort(-np.nan_to_num(features[..., 0], nan=-np.inf), axis=1)
    grades = np.zeros((400, 6), dtype=np.int32)
    grades[np.arange(400), best[:, 0]], grades[np.arange(400), best[:, 1]] = 2, 1
    booster = lambdamart.fit(features[:300], grades[:300], 7, 1, QUICK)
    scores = lambdamart.scores(booster, features[300:])
    assert (np.isinf(scores) == (np.arange(6) >= sizes[300:, None])).all()
    order = np.argsort(-scores, axis=1)
    assert (order[:, 0] == best[300:, 0]).mean() > 0.7 and (order[:, 1] == best[300:, 1]).mean() > 0.5
    # What the padding holds is never read: the same slates in a wider array give the same trees.
    wider = np.concatenate([features, np.full((400, 2, 2), np.nan, np.float32)], axis=1)
    again = lambdamart.fit(wider[:300], np.pad(grades[:300], ((0, 0), (0, 2))), 7, 1, QUICK)
    assert again.model_to_string() == booster.model_to_string()
    assert (lambdamart.contributions(booster, features[300:])[np.isinf(scores)] == 0).all()


def test_the_target_alone_is_a_grade_of_one():
    features, target = made_up()
    grades = (np.arange(5) == target[:, None]).astype(np.int32)
    first, second = (lambdamart.fit(features, labels, 7, 1, QUICK).model_to_string() for labels in (target, grades))
    assert first == second
