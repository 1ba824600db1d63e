"""A synthetic world whose probabilities are known, and what that is good for: the Bayes-optimal order of any slate.

A user of type t who took h = (h_1, ..., h_n) takes item j next with

    p(j | t, h) = [j not in h] exp(u_tj + v_hj) / sum over all items i not in h of exp(u_ti + v_hi)
    u_tj = popularity_j + taste_t,category(j) + taste_t,brand(j)
    v_hj = sum over m = 1..M of lag_m * (follow_c,c' + [brand(g) = brand(j)] * loyalty_c,c')
           with g = h_(n+1-m), c = category(g), c' = category(j)

(a conditional logit, McFadden 1974). A user's type is drawn from `prior` and never changes. Who knows the type orders by p; who knows the
world, but of the user only h, orders by the mixture of p under the posterior P(t | h), here exact: the types are finitely many.
Each order is the best for what its owner knows by every metric that falls with the rank of the one relevant item.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy.special import logsumexp

from stages.shared.core.errors import StageError

Ints = NDArray[Any]
Floats = NDArray[np.float64]
Histories = Sequence[Sequence[int] | Ints]

NOBODY = -1  # in place of an item: nothing was taken yet
_KIND = "world"  # the one key of the file's metadata
_NONE, _SYNTHETIC = "none", "synthetic"


@dataclass(frozen=True, eq=False)
class World:
    """In the names: I items, T types, C categories (the lower level), B brands, M last items that matter, U users.

    An item is its number in items.parquet, a user that in users.parquet. Weights are natural logarithms.
    """

    category_I: Ints
    brand_I: Ints
    popularity_I: Floats
    taste_TC: Floats
    taste_TB: Floats
    follow_CC: Floats  # row: the item taken before
    loyalty_CC: Floats
    lag_M: Floats  # of the last item, of the one before it, ...
    prior_T: Floats
    type_U: Ints

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """The world in which the data were made; None where they are real."""
        try:
            with safe_open(path, "numpy") as file:
                kind = (file.metadata() or {}).get(_KIND)
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        except FileNotFoundError:
            raise StageError(f"{path}: no such file; run the stage that makes it: gr2 run ingest") from None
        except (OSError, SafetensorError) as error:
            raise StageError(f"{path}: not a readable safetensors file ({error}); rerun: gr2 run ingest") from None
        if kind == _NONE:
            return None
        if kind != _SYNTHETIC or set(arrays) != {field.name for field in fields(cls)}:
            raise StageError(f"{path}: holds no world of this version; rerun: gr2 run ingest")
        return cls(**arrays)

    def save(self, path: Path) -> None:
        # safetensors writes the memory as it lies, so a transposed view would be saved as another array.
        arrays = {field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}
        save_file(arrays, path, metadata={_KIND: _SYNTHETIC})

    @cached_property
    def weight_TI(self) -> Floats:
        """u of the formula."""
        return self.popularity_I + self.taste_TC[:, self.category_I] + self.taste_TB[:, self.brand_I]

    def follow_up(self, last_NM: Ints, items_NK: Ints | None = None) -> Floats:
        """v of the formula for these items [N, K], or for all [N, I]. last_NM: the last item, the one before it, ..., or NOBODY."""
        items_NK = np.arange(len(self.category_I))[None] if items_NK is None else items_NK
        category_NK, brand_NK = self.category_I[items_NK], self.brand_I[items_NK]
        boost_NK = np.zeros((len(last_NM), items_NK.shape[1]))
        for last_N, lag in zip(last_NM.T, self.lag_M, strict=True):
            before_N, brand_N = self.category_I[last_N][:, None], self.brand_I[last_N][:, None]
            lag_boost_NK = self.follow_CC[before_N, category_NK] + (brand_N == brand_NK) * self.loyalty_CC[before_N, category_NK]
            boost_NK += np.where(last_N[:, None] == NOBODY, 0.0, lag * lag_boost_NK)
        return boost_NK

    def posterior(self, histories: Histories) -> Floats:
        """log P(type | history) [N, T]."""
        return self._read(histories)[0]

    def log_probabilities(self, histories: Histories, candidates_NK: Ints, types_N: Ints | None = None) -> Floats:
        """log p(next item | history) of the candidates [N, K], by the types given, else by their posterior; -inf: taken before."""
        candidates_NK = np.asarray(candidates_NK)
        log_posterior_NT, log_normaliser_NT = self._read(histories)
        last_NM = np.stack([self._last(history, len(history)) for history in histories])
        boost_NK = self.follow_up(last_NM, candidates_NK)
        log_p_NTK = self.weight_TI[:, candidates_NK].transpose(1, 0, 2) + boost_NK[:, None] - log_normaliser_NT[:, :, None]
        if types_N is None:
            log_p_NK: Floats = logsumexp(log_p_NTK + log_posterior_NT[:, :, None], axis=1)
        else:
            log_p_NK = log_p_NTK[np.arange(len(candidates_NK)), types_N]
        # What was taken cannot come again, whatever the weights say.
        taken_NK = np.stack([np.isin(candidates, history) for candidates, history in zip(candidates_NK, histories, strict=True)])
        return np.where(taken_NK, -np.inf, log_p_NK)

    def bayes_order(self, histories: Histories, candidates_NK: Ints, types_N: Ints | None = None) -> Ints:
        """Places of the candidates, best first [N, K]; of equals the first stays first."""
        return np.argsort(-self.log_probabilities(histories, candidates_NK, types_N), axis=1, kind="stable")

    def chances(self, histories: Histories, candidates_NK: Ints, types_N: Ints | None = None) -> Floats:
        """P(the candidate is the target | history, the slate holds the target) [N, K]."""
        log_p_NK = self.log_probabilities(histories, candidates_NK, types_N)
        chances: Floats = np.exp(log_p_NK - logsumexp(log_p_NK, axis=1, keepdims=True))
        return chances

    def _last(self, history: Sequence[int] | Ints, n: int) -> Ints:
        """The last items of the first n, latest first [M]."""
        last_M = np.full(len(self.lag_M), NOBODY)
        recent = np.asarray(history[max(0, n - len(last_M)) : n], dtype=np.int64)[::-1]
        last_M[: len(recent)] = recent
        return last_M

    def _read(self, histories: Histories) -> tuple[Floats, Floats]:
        """log P(type | history) and the logarithm of p's denominator, each [N, T].

        A history that begins another costs nothing: in backward order of the alphabet it comes right after those that it begins.
        """
        keys = [tuple(int(item) for item in history) for history in histories]
        self._check(keys)
        log_terms = np.empty((2, len(keys), len(self.prior_T)))
        whole: tuple[int, ...] = ()
        log_terms_along: Floats | None = None
        for index in sorted(range(len(keys)), key=keys.__getitem__, reverse=True):
            key = keys[index]
            if log_terms_along is None or whole[: len(key)] != key:
                whole, log_terms_along = key, self._read_along(key)
            log_terms[:, index] = log_terms_along[:, len(key)]
        return log_terms[0], log_terms[1]

    def _read_along(self, history: tuple[int, ...]) -> Floats:
        """As _read, for the history's beginnings of 0, 1, ..., n items: [2, n + 1, T]."""
        n, steps = len(history), np.arange(len(history))
        boost_NI = self.follow_up(np.stack([self._last(history, length) for length in range(n + 1)]))
        open_NI = np.exp(boost_NI)
        for step, item in enumerate(history):
            open_NI[step + 1 :, item] = 0.0
        with np.errstate(divide="ignore"):  # all items taken: no next one, and -inf says so
            log_normaliser_NT = np.log(open_NI @ np.exp(self.weight_TI).T)
        log_p_NT = self.weight_TI[:, list(history)].T + boost_NI[steps, list(history)][:, None] - log_normaliser_NT[:n]
        log_joint_NT = np.log(self.prior_T) + np.concatenate([np.zeros((1, len(self.prior_T))), np.cumsum(log_p_NT, axis=0)])
        return np.stack([log_joint_NT - logsumexp(log_joint_NT, axis=1, keepdims=True), log_normaliser_NT])

    def _check(self, histories: list[tuple[int, ...]]) -> None:
        for place, history in enumerate(histories):
            if len(set(history)) < len(history) or (history and not 0 <= min(history) <= max(history) < len(self.category_I)):
                raise StageError(f"history {place} cannot come from this world: an item twice, or none of its {len(self.category_I)} items")


def whole_histories(interactions: pl.DataFrame, users_N: ArrayLike, positions_N: ArrayLike) -> list[Ints]:
    """What each user took before the position, oldest first. The history in a slate is cut short, and the posterior needs all of it.

    interactions: INTERACTIONS, sorted as on disk.
    """
    taken = {user: rows["item"].to_numpy() for (user,), rows in interactions.group_by("user", maintain_order=True)}
    return [taken[user][:position] for user, position in zip(np.asarray(users_N).tolist(), np.asarray(positions_N).tolist(), strict=True)]


def expected(value_K: ArrayLike, orders_NK: Ints, chances_NK: Floats) -> Floats:
    """The metric of each order [N] as the mean over the targets that might have been, not for the one that was: no noise of that draw.

    value_K: the metric when the target ends at rank 0, 1, ...; orders_NK: places of the candidates, best first; chances_NK: World.chances.
    """
    means: Floats = np.take_along_axis(chances_NK, orders_NK, axis=1) @ np.asarray(value_K, dtype=np.float64)
    return means


def share_of_headroom(model: ArrayLike, incoming: ArrayLike, oracle: ArrayLike) -> float | None:
    """What part of the gain that can be had a model has: (model - incoming) / (oracle - incoming), each a mean over the same slates.

    0: no better than the initial ranking (below 0: worse). 1: as good as the oracle. Above 1 only by luck of the draw, or with an oracle
    that knows less than the model; `expected` metrics have no luck. The ratio of two means, not the mean of ratios: where nothing can be
    gained there is no ratio. None where the oracle gains nothing in all. Its interval: resample users and compute the whole ratio anew.
    """
    incoming_mean, model_mean, oracle_mean = (float(np.mean(np.asarray(values, dtype=np.float64))) for values in (incoming, model, oracle))
    return (model_mean - incoming_mean) / (oracle_mean - incoming_mean) if oracle_mean > incoming_mean else None


def save_no_world(path: Path) -> None:
    """For data that were not made here: DVC wants every output of a stage to be there."""
    save_file({}, path, metadata={_KIND: _NONE})
