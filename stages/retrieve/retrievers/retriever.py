"""What proposes the candidates: four retrievers behind one interface, chosen by `retrieve.model`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import polars as pl

from stages.retrieve.params import RetrieveParams

Figures: TypeAlias = Mapping[str, float | Mapping[str, float]]  # of a fit, for metrics.json


class Ranker(Protocol):
    def top_k(self, histories: Sequence[Sequence[int]], seen: Sequence[Sequence[int]], k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best items not in `seen`, best first: (items int32 [N, k], scores float32 [N, k]).

        A history is oldest first and may be empty. A score of -inf marks a rank that could not be filled; its item means nothing.
        """

    def save(self, folder: Path) -> None:
        """Writes its weights as safetensors into `folder`, creating it if needed. The language model writes nothing: its folder is
        data/midtrain/model."""


def fit(params: RetrieveParams, training: pl.DataFrame, items: int, seed: int) -> tuple[Ranker, Figures]:
    """The retriever that `params.model` names, fitted on `training`, with figures for metrics.json.

    training: INTERACTIONS rows, sorted by user, then position. The language model was trained in midtrain and reads none of them.
    """
    # Imported here for start-up time: popularity and item_knn need no torch, and only the language model needs transformers.
    if params.model == "popularity":
        from stages.retrieve.retrievers import popularity

        return popularity.fit(training, items)
    if params.model == "item_knn":
        from stages.retrieve.retrievers import item_knn

        return item_knn.fit(params.item_knn, training, items)
    if params.model == "language_model":
        from stages.retrieve.retrievers import language_model

        return language_model.fit(params, items)
    from stages.retrieve.retrievers import sequence_model

    return sequence_model.fit(params, training, items, seed)
