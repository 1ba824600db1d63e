"""What proposes the candidates: four pre-rankers behind one interface, chosen by `prerank.model`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from stages.prerank.params import PrerankParams


class Ranker(Protocol):
    def top_k(self, histories: Sequence[Sequence[int]], seen: Sequence[Sequence[int]], k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best items not in `seen`, best first: (items int32 [N, k], scores float32 [N, k]).

        A history is told oldest first and may be empty. A score of -inf marks a place that could not be filled; its item means nothing.
        """

    def save(self, folder: Path) -> None:
        """Its weights as safetensors in `folder`, which is made if need be. The language model, which has a folder of its own, writes
        nothing."""


def fit(params: PrerankParams, training: pl.DataFrame, items: int, seed: int) -> tuple[Ranker, dict[str, Any]]:
    """The pre-ranker that `params.model` names, learnt from `training`, with figures for metrics.json.

    training: INTERACTIONS rows, sorted by user, then position. The language model learnt in midtrain and reads none of them.
    """
    # Each is imported where it is wanted: what only counts needs no torch, and only the language model needs transformers.
    if params.model == "popularity":
        from stages.prerank import popularity

        return popularity.fit(training, items)
    if params.model == "item_knn":
        from stages.prerank import item_knn

        return item_knn.fit(params.item_knn, training, items)
    if params.model == "language_model":
        from stages.prerank import language_model

        return language_model.fit(params, items)
    from stages.prerank import sequence_ranker

    return sequence_ranker.fit(params, training, items, seed)
