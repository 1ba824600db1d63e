"""Each baseline against a plain spelling of itself."""

from dataclasses import replace
from fractions import Fraction

import lightgbm as lgb
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.evaluate.baselines import FUSED_FEATURES, NAMES, baselines, oracle, reciprocal_rank_fusion
from stages.evaluate.shuffled_slates import shuffles
from stages.shared.core.errors import StageError
from stages.shared.core.leakage import training_counts
from stages.shared.core.schemas import INTERACTIONS
from stages.shared.evaluation.rankers import ALL_FEATURES, CONTRASTS, contrasts_of
from stages.shared.slates.candidate_features import FEATURES
from stages.shared.slates.slate import Slate, permuted
from stages.shared.stats.metrics import ranks_of_targets

RNG = np.random.default_rng(11)
N, M, K, ITEMS, DIM = 25, 150, 6, 40, 8
EMBEDDINGS = RNG.normal(size=(ITEMS, DIM)).astype(np.float32)
COUNTS = RNG.integers(0, 12, ITEMS)  # with ties


def made_up(count, seed):
    rng = np.random.default_rng(seed)
    features = np.round(rng.random((count, K, len(FEATURES))), 1).astype(np.float32)
    features[..., list(FEATURES).index("sc")] = -np.sort(rng.random((count, K)), axis=1)  # the initial ranking is that of the score
    target = features[..., 0].argmax(axis=1)
    slates = [
        Slate(i, i // 2, "test", i, rng.permutation(ITEMS)[:3].tolist(), rng.permutation(ITEMS)[:K].tolist(), [], int(target[i]))
        for i in range(count)
    ]
    return slates, features


SLATES, FEATURES_NKF = made_up(N, 1)
TRAIN, TRAIN_FEATURES = made_up(M, 2)
TRAIN_RANKS = np.array([slate.target_rank for slate in TRAIN])


def all_of_them(slates=SLATES, features=FEATURES_NKF, counts=COUNTS, embeddings=EMBEDDINGS, **more):
    return baselines(slates, features, TRAIN_FEATURES, TRAIN_RANKS, counts, embeddings, seed=7, threads=1, **more)


FOUND = all_of_them()
MORE = ((FEATURES_NKF, [slate.target_rank for slate in SLATES]), (TRAIN_FEATURES, TRAIN_RANKS))


def cosine(a, b):
    return float(a.astype(float) @ b.astype(float) / np.linalg.norm(a.astype(float)) / np.linalg.norm(b.astype(float)))


def by(scores):
    """Initial ranks by falling score, ties as they came."""
    return sorted(range(len(scores)), key=lambda rank: (-scores[rank], rank))


def mean_rank(scores, rank):
    """From 1; equals share the mean of their places."""
    above, same = sum(own > scores[rank] for own in scores), sum(own == scores[rank] for own in scores)
    return Fraction(2 * above + same + 1, 2)


def test_all_are_there_under_their_names_and_are_permutations():
    assert tuple(FOUND) == NAMES
    for judged in FOUND.values():
        assert judged.orders.shape == (N, K) and (np.sort(judged.orders, axis=1) == np.arange(K)).all() and judged.valid.all()
    assert (FOUND["incoming"].orders == np.arange(K)).all()


def test_with_more_features_lambdamart_has_the_six_and_a_second_one_has_all():
    """What decides is in the seventh: only who sees it finds the target."""
    features = [np.concatenate([table, np.eye(K)[ranks][..., None]], axis=2) for table, ranks in MORE]
    found = baselines(SLATES, features[0], features[1], TRAIN_RANKS, COUNTS, EMBEDDINGS, seed=7, threads=1)
    assert set(found) == {*NAMES, ALL_FEATURES}
    assert all((found[name].orders == FOUND[name].orders).all() for name in NAMES)
    assert (found[ALL_FEATURES].orders[:, 0] == [slate.target_rank for slate in SLATES]).all()
    assert contrasts_of(FOUND) == CONTRASTS and ("rl", ALL_FEATURES) in contrasts_of(found)


def test_popularity_and_last_item_are_brute_force():
    for i, slate in enumerate(SLATES):
        assert FOUND["popularity"].orders[i].tolist() == by([COUNTS[item] for item in slate.candidates])
        last = EMBEDDINGS[slate.history[-1]]
        assert FOUND["last_item"].orders[i].tolist() == by([cosine(EMBEDDINGS[item], last) for item in slate.candidates])


def test_the_length_of_an_embedding_says_nothing():
    scaled = EMBEDDINGS * RNG.uniform(0.1, 9, (ITEMS, 1)).astype(np.float32)
    assert (all_of_them(embeddings=scaled)["last_item"].orders == FOUND["last_item"].orders).all()


def test_fusion_is_brute_force_in_exact_fractions():
    for i, slate in enumerate(SLATES):
        last = EMBEDDINGS[slate.history[-1]]
        rankings = [FEATURES_NKF[i, :, list(FEATURES).index(feature)].tolist() for feature in FUSED_FEATURES]
        rankings += [[int(COUNTS[item]) for item in slate.candidates], [cosine(EMBEDDINGS[item], last) for item in slate.candidates]]
        fused = [sum(1 / (60 + mean_rank(scores, rank)) for scores in rankings) for rank in range(K)]
        assert FOUND["fusion"].orders[i].tolist() == by(fused)


@given(arrays(np.int8, (4, 3, 5), elements=st.integers(0, 3)))
def test_fused_scores_are_exact_and_a_ranking_that_knows_nothing_changes_none(scores):
    names = {str(i): own.astype(float) for i, own in enumerate(scores)}
    fused = reciprocal_rank_fusion(names)
    for slate in range(3):
        for rank in range(5):
            expected = sum(1 / (60 + mean_rank(own[slate].tolist(), rank)) for own in scores)
            assert fused[slate, rank] == pytest.approx(float(expected), abs=1e-12)
    silent = reciprocal_rank_fusion(names | {"silent": np.zeros((3, 5))})
    np.testing.assert_array_equal(np.argsort(-silent, axis=1, kind="stable"), np.argsort(-fused, axis=1, kind="stable"))


def test_fusion_with_the_formula_of_its_paper():
    """Two rankers, opposite: 1/61 + 1/63 > 2/62, so the extremes come before the middle."""
    fused = reciprocal_rank_fusion({"up": np.array([[3.0, 2.0, 1.0]]), "down": np.array([[1.0, 2.0, 3.0]])})
    np.testing.assert_allclose(fused, [[1 / 61 + 1 / 63, 2 / 62, 1 / 61 + 1 / 63]], atol=1e-12)


def test_lambdamart_learns_what_the_training_slates_show_and_is_lightgbms_own():
    targets = np.array([slate.target_rank for slate in SLATES])
    ranks = ranks_of_targets(FOUND["lambdamart"].orders, targets)
    assert ranks.mean() < 0.6 * targets.mean()
    labels = (np.arange(K) == TRAIN_RANKS[:, None]).astype(int).ravel()
    model = lgb.LGBMRanker(
        n_estimators=200, learning_rate=0.05, num_leaves=7, min_child_samples=50, reg_lambda=5.0, colsample_bytree=0.8, random_state=7,
        n_jobs=1, lambdarank_truncation_level=5, deterministic=True, force_row_wise=True, verbosity=-1,
    )  # fmt: skip
    model.fit(TRAIN_FEATURES.reshape(-1, len(FEATURES)), labels, group=[K] * M)
    scores = np.asarray(model.predict(FEATURES_NKF.reshape(-1, len(FEATURES)))).reshape(N, K)
    assert (FOUND["lambdamart"].orders == np.argsort(-scores, axis=1, kind="stable")).all()


def test_the_oracle_puts_the_target_first_and_leaves_the_rest():
    for slate, order in zip(SLATES, FOUND["oracle"].orders.tolist(), strict=True):
        assert order == [slate.target_rank, *(rank for rank in range(K) if rank != slate.target_rank)]
    known = np.log(RNG.dirichlet(np.ones(K), N))
    assert (all_of_them(log_probabilities_NK=known)["oracle"].orders == np.argsort(-known, axis=1)).all()


def test_in_expectation_no_order_beats_the_oracle_that_knows_the_probabilities():
    """Recall@1 of every other first candidate, by the known probabilities."""
    known = RNG.dirichlet(np.ones(K), N)
    first = oracle(SLATES, np.log(known)).orders[:, 0]
    assert (known[np.arange(N), first][:, None] >= known).all()


def test_shuffled_slates_with_their_features_get_the_same_items_order():
    orders = shuffles(SLATES, seed=1)
    moved = [permuted(Slate(**{**slate.__dict__, "bins": [[0]] * K}), order) for slate, order in zip(SLATES, orders.tolist(), strict=True)]
    features = np.take_along_axis(FEATURES_NKF, orders[..., None], axis=1)
    distinct_counts = np.random.default_rng(3).permutation(ITEMS)  # a tie goes by the initial ranking, which was changed
    before, after = all_of_them(counts=distinct_counts), all_of_them(moved, features, distinct_counts)
    for name in ("popularity", "last_item"):
        assert (np.take_along_axis(orders, after[name].orders, axis=1) == before[name].orders).all()


def test_counts_are_of_the_base_split_alone():
    rows = [(0, 1, 0, 0, "base"), (0, 2, 1, 1, "train"), (0, 3, 2, 2, "test"), (1, 1, 0, 0, "base"), (1, 0, 1, 1, "valid")]
    assert training_counts(pl.DataFrame(rows, schema=INTERACTIONS, orient="row"), 5).tolist() == [0, 2, 0, 0, 0]


def test_errors_name_the_slate_or_the_row_and_the_remedy():
    with pytest.raises(StageError, match=r"slate \d+: item 39 .* \(39 rows\); rerun: gr2 run embed"):
        all_of_them(embeddings=EMBEDDINGS[:-1])
    with pytest.raises(StageError, match=r"embeddings\.npy: row 4 is not finite; rerun: gr2 run embed"):
        all_of_them(embeddings=np.where(np.arange(ITEMS)[:, None] == 4, np.nan, EMBEDDINGS))
    with pytest.raises(StageError, match=r"features of shape \(24, 6, 6\) for slates of shape \(25, 6\)"):
        all_of_them(features=FEATURES_NKF[1:])
    with pytest.raises(StageError, match="slate 3 of user 1 has no history"):
        all_of_them([*SLATES[:3], Slate(**{**SLATES[3].__dict__, "history": []}), *SLATES[4:]])


def test_a_slate_of_fewer_candidates_is_ranked_as_without_its_neighbours():
    """Of slates of unlike length each is ordered as it is alone: what pads it is no candidate."""
    sizes = [3 + row % (K - 2) for row in range(N)]
    short, features = [], FEATURES_NKF.copy()
    for slate, size, own in zip(SLATES, sizes, features, strict=True):
        target = slate.target_rank % size
        grades = tuple(int(rank == target) + int(rank == 0) for rank in range(size))
        short.append(replace(slate, candidates=slate.candidates[:size], target_rank=target, grades=grades))
        own[size:] = np.nan
    together = all_of_them(short, features)
    for row, (slate, size) in enumerate(zip(short, sizes, strict=True)):
        alone = all_of_them([slate], features[row : row + 1, :size])
        for name in NAMES:
            assert together[name].orders[row].tolist() == [*alone[name].orders[0].tolist(), *range(size, K)], name
    # Of the highest grade first, then of the next.
    graded = [
        [slate.grades[rank] for rank in order[:size]] for slate, size, order in zip(short, sizes, together["oracle"].orders, strict=True)
    ]
    assert graded == [sorted(slate.grades, reverse=True) for slate in short]
