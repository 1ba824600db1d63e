"""The retriever's scores of given candidates, from the weights that the stage `retrieve` kept: for requests that bring none."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors

from stages.retrieve.params import RetrieveParams
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA
from stages.shared.recsys import sasrec

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


def open_scorer(params: RetrieveParams, items: int, folder: Path = FOLDER) -> CandidateScorer | None:
    """None for a retriever that keeps nothing here by which single candidates could be scored: its requests bring their scores."""
    if params.model == "sasrec":
        return SasrecScorer(params, items, folder)
    return PopularityScorer(folder) if params.model == "popularity" else None


def _weights(folder: Path, name: str) -> Path:
    path = folder / f"{name}.safetensors"
    if not path.exists():
        raise StageError(f"{path}: no such file; run the stage that makes it: gr2 run retrieve")
    return path
