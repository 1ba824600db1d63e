"""The retriever `sasrec`: a transformer over the sequence of items, stages/shared/recsys/sasrec.py."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file

from stages.retrieve.params import RetrieveParams
from stages.retrieve.retrievers.retriever import Figures
from stages.shared.core.device import device_of
from stages.shared.recsys import sasrec


class SequenceRanker:
    def __init__(self, model: sasrec.SASRec):
        self.model = model

    def top_k(self, histories: Sequence[Sequence[int]], seen: Sequence[Sequence[int]], k: int) -> tuple[np.ndarray, np.ndarray]:
        return sasrec.top_k(self.model, histories, seen, k)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.cpu().contiguous() for name, tensor in self.model.state_dict().items()}, folder / "sasrec.safetensors")


def fit(params: RetrieveParams, training: pl.DataFrame, items: int, seed: int) -> tuple[SequenceRanker, Figures]:
    torch.manual_seed(seed)
    model = sasrec.SASRec(items, params.hidden, params.layers, params.heads, params.max_length, params.dropout)
    model.to(device_of(params.device, "retrieve.device"))  # after the weights are drawn: a GPU would draw others
    negatives = params.negatives if params.loss == "sampled" else None
    sequences = sasrec.sequences_of(training)
    losses = sasrec.train(model, sequences, params.epochs, params.batch_size, params.lr, seed, params.weight_decay, negatives)
    return SequenceRanker(model), {"loss": {"first": losses[0], "last": losses[-1]}}
