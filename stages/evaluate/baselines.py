"""What a language model must beat: simple rankers of the same slates, under fixed names.

Features and candidates are read by position, so shuffled slates need features shuffled alike (shuffled_slates.shuffles).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from stages.shared.core.errors import StageError
from stages.shared.evaluation.rankers import ALL_FEATURES
from stages.shared.recsys import lambdamart
from stages.shared.recsys.lambdamart_params import LambdaMartParams
from stages.shared.slates.candidate_features import FEATURES
from stages.shared.slates.reranking import rankings
from stages.shared.slates.reranking.padding import padded
from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.slates.slate import Slate

Floats = NDArray[np.floating]

NAMES = ("incoming", "popularity", "last_item", "lambdamart", "fusion", "oracle")
FUSION_K = 60  # Cormack, Clarke and Büttcher 2009
FUSED_FEATURES = {"sc": "retriever score", "co": "co-occurrence", "tr": "transition"}


def baselines(
    slates: Sequence[Slate],
    features_NKF: Floats,
    train_features_MKF: Floats,
    train_relevance: NDArray[np.int_],
    counts_I: NDArray[np.int_],
    embeddings_ID: Floats,
    seed: int,
    threads: int,
    log_probabilities_NK: Floats | None = None,
) -> dict[str, Rankings]:
    """All of NAMES on `slates`, each with at least two candidates; K: of the longest, features of shorter ones end in rows of NaN.

    features: of these slates, and of the training slates that LambdaMART learns from, in the order of FEATURES; further ones
    (prompt.more_features) behind them. LambdaMART reads the six of FEATURES; with further ones there is a second, ALL_FEATURES, of all.
    train_relevance: as of lambdamart.fit. counts: leakage.training_counts.
    embeddings: one row an item. log_probabilities: of each candidate being taken, where a synthetic world knows them.
    """
    candidates_NK = padded([slate.candidates for slate in slates], -1)
    if features_NKF.shape[:-1] != candidates_NK.shape or features_NKF.shape[-1] < len(FEATURES):
        raise StageError(
            f"features of shape {features_NKF.shape} for slates of shape {candidates_NK.shape} and {len(FEATURES)} features; "
            f"rerun: gr2 run retrieve"
        )
    known = min(len(counts_I), len(embeddings_ID))
    if candidates_NK.max() >= known:
        row, column = np.argwhere(candidates_NK >= known)[0]
        raise StageError(
            f"slate {slates[row].slate}: item {candidates_NK[row, column]} has no count or no row in data/embed/embeddings.npy "
            f"({len(embeddings_ID)} rows); rerun: gr2 run embed retrieve"
        )
    absent = candidates_NK < 0
    scores = {
        "popularity": np.where(absent, -np.inf, counts_I[candidates_NK].astype(np.float64)),
        "last_item": np.where(absent, -np.inf, similarity_to_last(slates, embeddings_ID)),
    }
    features = {
        what: np.where(absent, -np.inf, features_NKF[..., list(FEATURES).index(feature)]) for feature, what in FUSED_FEATURES.items()
    }
    six, whole = len(FEATURES), features_NKF.shape[-1]
    seen = {"lambdamart": six} | ({ALL_FEATURES: whole} if whole > six else {})
    return {
        "incoming": rankings.incoming(slates),
        "popularity": rankings.from_scores(scores["popularity"]),
        "last_item": rankings.from_scores(scores["last_item"]),
        **{
            name: from_lambdamart(train_features_MKF[..., :count], train_relevance, features_NKF[..., :count], seed, threads)
            for name, count in seen.items()
        },
        "fusion": rankings.from_scores(reciprocal_rank_fusion(features | scores)),
        "oracle": oracle(slates, log_probabilities_NK),
    }


def from_lambdamart(train: np.ndarray, relevance: np.ndarray, test: np.ndarray, seed: int, threads: int) -> Rankings:
    """LightGBM's LambdaMART on the features themselves, not their bins. train, test: [n, K, features]."""
    booster = lambdamart.fit(train, relevance, seed, threads, LambdaMartParams())
    return rankings.from_scores(lambdamart.scores(booster, test))


def similarity_to_last(slates: Sequence[Slate], embeddings_ID: Floats) -> NDArray[np.float64]:
    """[n, K]: cosine of each candidate to the last item of the history; 0 where either row is zero. Past a slate's end it means nothing."""
    if blank := next((slate for slate in slates if not slate.history), None):
        raise StageError(f"slate {blank.slate} of user {blank.user} has no history, so no last item; rerun: gr2 run retrieve")
    if not np.isfinite(embeddings_ID).all():
        row = int(np.argmin(np.isfinite(embeddings_ID).all(axis=1)))
        raise StageError(f"data/embed/embeddings.npy: row {row} is not finite; rerun: gr2 run embed")
    last_ND, candidates_NKD = (
        _unit(embeddings_ID[which]) for which in (np.array([s.history[-1] for s in slates]), padded([s.candidates for s in slates], 0))
    )
    return np.einsum("nkd,nd->nk", candidates_NKD, last_ND)


def reciprocal_rank_fusion(scores: Mapping[str, Floats], k: int = FUSION_K) -> NDArray[np.float64]:
    """name -> scores [n, K], higher is better; the fused score [n, K] is the sum over names of 1 / (k + rank), ranks from 1.

    Equal scores share their mean rank: broken by the incoming order, a ranking that knows nothing would vote for that order.
    """
    ranks = np.stack([rankdata(-scores_NK, axis=1, method="average") for scores_NK in scores.values()])
    return np.round((1 / (k + ranks)).sum(axis=0), 12)  # rounded: sums of the same terms in another order shall be ties


def oracle(slates: Sequence[Slate], log_probabilities_NK: Floats | None = None) -> Rankings:
    """The most any order can reach: what was taken first, by grade, the rest as it came; or, with known probabilities, the likeliest first,
    which is the most an order can reach in expectation without knowing the outcome."""
    if log_probabilities_NK is not None:
        return rankings.from_scores(log_probabilities_NK)
    return rankings.from_scores(padded([slate.relevant for slate in slates], -np.inf, np.float64))


def _unit(vectors: Floats) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-12)
