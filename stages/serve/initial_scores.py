"""The retriever's scores of given candidates, from the weights that the stage `retrieve` kept: for requests that bring none."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors

from stages.retrieve.params import ItemKnnParams, RetrieveParams
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA
from stages.shared.recsys import sasrec
from stages.shared.recsys.ragged import flatten

Scores = NDArray[np.float32]
FOLDER = DATA / "retrieve/model"


class CandidateScorer(Protocol):
    def scores(self, histories: Sequence[Sequence[int]], candidates_NK: NDArray[np.int_]) -> Scores:
        """[N, K], higher is better, as slates.parquet has them. histories: oldest first, as much as is known."""


class SasrecScorer:
    def __init__(self, params: RetrieveParams, items: int, folder: Path):
        self.model = sasrec.SASRec(items, params.hidden, params.layers, params.heads, params.max_length, params.dropout)
        self.model.load_state_dict(load_tensors(_weights(folder, "sasrec")))
        self.model.eval()

    @torch.no_grad()
    def scores(self, histories: Sequence[Sequence[int]], candidates_NK: NDArray[np.int_]) -> Scores:
        tokens = sasrec.pad(histories, self.model.max_length)
        last = (tokens != sasrec.PAD).sum(dim=1).clamp(min=1) - 1
        logits = self.model.logits(self.model(tokens)[torch.arange(len(histories)), last])
        return logits.gather(1, torch.from_numpy(candidates_NK.astype(np.int64))).numpy()


class PopularityScorer:
    def __init__(self, folder: Path):
        self.counts: Scores = load_file(_weights(folder, "popularity"))["counts"]

    def scores(self, histories: Sequence[Sequence[int]], candidates_NK: NDArray[np.int_]) -> Scores:
        return self.counts[candidates_NK]


class ItemKnnScorer:
    """score = sum over the last items of similarity * decay^(steps back), as stages/retrieve/retrievers/item_knn.py has it."""

    def __init__(self, params: ItemKnnParams, folder: Path):
        arrays = load_file(_weights(folder, "item_knn"))
        count = len(arrays["counts"])
        self.similarity = sp.csr_matrix((arrays["similarity"], arrays["items"], arrays["offsets"]), shape=(count, count))
        self.last, self.decay = params.last, params.decay

    def scores(self, histories: Sequence[Sequence[int]], candidates_NK: NDArray[np.int_]) -> Scores:
        rows, places, items = flatten([history[-self.last :] for history in histories])
        steps_back = np.bincount(rows, minlength=len(histories))[rows] - 1 - places
        shape = (len(histories), self.similarity.shape[0])
        votes = sp.csr_matrix(((self.decay**steps_back).astype(np.float32), (rows, items)), shape=shape)
        slates = np.arange(len(histories)).repeat(candidates_NK.shape[1])
        found = sp.csr_matrix(votes @ self.similarity)[slates, candidates_NK.ravel()]  # never whole rows of the catalogue
        return np.asarray(found, dtype=np.float32).reshape(candidates_NK.shape)


class PlaceScorer:
    """As logged slates without scores have them (stages/retrieve/given/given.py): minus the place, or 0 where the order says nothing."""

    def __init__(self, order: str):
        self.order = order

    def scores(self, histories: Sequence[Sequence[int]], candidates_NK: NDArray[np.int_]) -> Scores:
        by_place = -np.arange(candidates_NK.shape[1], dtype=np.float32) * (self.order == "shown")
        return np.tile(by_place, (len(candidates_NK), 1))


def open_scorer(params: RetrieveParams, items: int, folder: Path = FOLDER) -> CandidateScorer | None:
    """None for a retriever that keeps nothing here by which single candidates could be scored: its requests bring their scores."""
    if params.model == "sasrec":
        return SasrecScorer(params, items, folder)
    if params.model == "item_knn":
        return ItemKnnScorer(params.item_knn, folder)
    if params.model == "given":
        return None if params.given.scores else PlaceScorer(params.given.order)
    return PopularityScorer(folder) if params.model == "popularity" else None


def _weights(folder: Path, name: str) -> Path:
    path = folder / f"{name}.safetensors"
    if not path.exists():
        raise StageError(f"{path}: no such file; run the stage that makes it: gr2 run retrieve")
    return path
