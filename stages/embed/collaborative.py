"""Item vectors from who took what after what: the item table of a SASRec trained on the base sequences alone."""

from dataclasses import dataclass

import numpy as np
import torch

from stages.embed.params import LEAST_ITEMS, CollaborativeParams
from stages.embed.vectors import normalise
from stages.shared.core.errors import StageError
from stages.shared.recsys import sasrec

HELD_OUT_SHARE = 0.1  # of the items with their own vector, for the R2 of predicting it
RIDGE_PENALTIES = np.logspace(-2, 4, 13)


@dataclass(frozen=True)
class ItemVectors:
    """`vectors`: float32 [items, hidden], length 1, zero where `known` (bool [items]) is false. `losses`: one an epoch."""

    vectors: np.ndarray
    known: np.ndarray
    losses: list[float]


def train_item_vectors(sequences: list[list[int]], items: int, params: CollaborativeParams, seed: int) -> ItemVectors:
    """Items in a sequence of at least two are known; nothing was learnt about the others.

    The mean of the known vectors is subtracted: it is what all items share, and would make all cosines large.
    """
    sequences = [sequence for sequence in sequences if len(sequence) >= 2]
    known = np.zeros(items, dtype=bool)
    known[[item for sequence in sequences for item in sequence]] = True
    if known.sum() < LEAST_ITEMS:
        raise StageError(
            f"data/ingest/interactions.parquet: {known.sum()} items are in base sequences of two or more; collaborative vectors "
            f"need {LEAST_ITEMS}; raise ingest.base_share or set embed.collaborative.mode: none"
        )
    torch.manual_seed(seed)
    model = sasrec.SASRec(items, params.hidden, params.layers, params.heads, params.max_length, params.dropout)
    losses = sasrec.train(model, sequences, params.epochs, params.batch_size, params.lr, seed)
    # Row 0 is the padding, not an item.
    table = model.item.weight.detach().numpy()[1:]
    if not np.isfinite(losses).all() or not np.isfinite(table).all():
        raise StageError(f"embed.collaborative: the training diverged (last loss {losses[-1]}); lower embed.collaborative.lr")
    vectors = np.zeros_like(table)
    vectors[known] = normalise(table[known] - table[known].mean(axis=0), "collaborative vector", "raise embed.collaborative.epochs")
    return ItemVectors(vectors, known, losses)


def predict_unknown(text: np.ndarray, collaborative: ItemVectors, seed: int) -> tuple[np.ndarray, float]:
    """Every item's collaborative vector, and the R2 of predicting one from the text.

    Items without their own get what ridge regression predicts from their text vector, at length 1. R2 (all dimensions
    together) comes from a regression on nine tenths of the known items, measured on the remaining tenth.
    """
    shuffled = np.random.default_rng(seed).permutation(np.flatnonzero(collaborative.known))
    held_out, fit = np.split(shuffled, [max(1, round(HELD_OUT_SHARE * len(shuffled)))])
    actual = collaborative.vectors[held_out]
    # Sums in float64: R2 is a difference of two large numbers that are nearly equal.
    missed = np.square(actual - _ridge(text[fit], collaborative.vectors[fit], text[held_out])).sum(dtype=np.float64)
    spread = np.square(actual - collaborative.vectors[fit].mean(axis=0)).sum(dtype=np.float64)
    vectors = collaborative.vectors.copy()
    if not collaborative.known.all():
        predicted = _ridge(text[collaborative.known], collaborative.vectors[collaborative.known], text[~collaborative.known])
        vectors[~collaborative.known] = normalise(predicted, "predicted collaborative vector", "set embed.collaborative.mode: none")
    return vectors, float(1 - missed / spread)


def _ridge(x: np.ndarray, y: np.ndarray, x_new: np.ndarray) -> np.ndarray:
    """Prediction for `x_new` of a ridge regression of y on x, its penalty chosen by leave-one-out."""
    from sklearn.linear_model import RidgeCV  # a slow import that only this part needs

    return RidgeCV(RIDGE_PENALTIES).fit(x.astype(np.float64), y.astype(np.float64)).predict(x_new.astype(np.float64))
