"""Where the rows of new tokens start, in the input embedding and in an untied output head alike (`midtrain.new_rows`).

- words: the mean of the word embeddings of the titles and categories of the items that carry a code (word_shares.py);
- codebook: the codes' vectors of data/tokenize, through a linear projection learnt by ridge regression onto those means;
- random: normal, with mean and standard deviation of the rows that the checkpoint trained, dimension by dimension.

Every row of an added token is written, whether its id lies beyond the matrix or, as the first few hundred of Qwen3's do, on padding
rows that the checkpoint has and its tokenizer never used. Those rows count in no mean either.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.midtrain.params import NewRows
from stages.midtrain.word_shares import carriers, code_of, word_shares
from stages.shared.core.errors import StageError
from stages.shared.slates.slate import Catalog
from stages.shared.training.zero import gathered

# Shapes: A added tokens, T words (tokens that the checkpoint has trained rows of), H hidden size, D of a codebook's vectors, K codes.

RIDGE = 0.1  # penalty of the projection, as a share of the mean variance of its inputs' dimensions


@dataclass(frozen=True)
class ItemCodes:
    """The catalogue, the codes of its items int [N, L], and the file with the codebooks [L, codes, D]."""

    catalog: Catalog
    codes_NL: np.ndarray
    codebooks: Path


def start_rows(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, added: Sequence[str], how: NewRows, items: ItemCodes, seed: int
) -> list[int]:
    """Writes the rows of the tokens `added`, for which `model` has room; all other rows keep their bytes. Returns their ids, ascending."""
    if not added:
        return []
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(added, key=vocabulary.__getitem__)
    ids = [vocabulary[token] for token in tokens]
    known = sorted(set(vocabulary.values()) - set(ids))
    shares_AT = word_shares(tokenizer, tokens, known, items.catalog, items.codes_NL) if how != "random" else None
    head: Any = model.get_output_embeddings()
    embeddings: Any = model.get_input_embeddings()
    # A tied head is the same tensor, and is written once.
    weights = {id(weight): weight for weight in (embeddings.weight, head.weight)}
    with torch.no_grad(), gathered(weights.values(), written=True):
        for number, weight in enumerate(weights.values()):
            rows_TH = weight[known].float().cpu()  # shared out (ZeRO-3), it is gathered on the GPU
            if shares_AT is None:
                generator = torch.Generator().manual_seed(seed + number)
                new_AH = rows_TH.mean(0) + rows_TH.std(0) * torch.randn(len(ids), weight.shape[1], generator=generator)
            else:
                means_AH = shares_AT @ rows_TH.numpy()
                new_AH = torch.from_numpy(_projected(means_AH, tokens, items) if how == "codebook" else means_AH)
            weight[ids] = new_AH.to(weight)
        if getattr(head, "bias", None) is not None:
            head.bias[ids] = head.bias[known].mean()
    return ids


def _projected(means_AH: np.ndarray, tokens: Sequence[str], items: ItemCodes) -> np.ndarray:
    """`means_AH` with the rows of codes replaced by what their codebook vectors predict, level by level around the items' mean.

    Vectors of deeper levels are residuals, which lie around zero, so each level is centred by itself; one projection serves all.
    """
    books = read_codebooks(items.codebooks)
    rows = [row for row, token in enumerate(tokens) if code_of(token)]
    places = [code_of(tokens[row]) or (0, 0) for row in rows]
    levels, codes = (np.array(part) for part in zip(*places, strict=True))
    if levels.max() >= len(books) or codes.max() >= books.shape[1]:
        raise StageError(f"{items.codebooks}: {books.shape[:2]} levels and codes, and the SIDs have more; rerun: gr2 run tokenize")
    weights_K = np.array([len(carriers(tokens[row], items.codes_NL)) for row in rows], dtype=np.float64)
    vectors_KD = books[levels, codes].astype(np.float64)
    for level in np.unique(levels):
        at = levels == level
        vectors_KD[at] -= np.average(vectors_KD[at], axis=0, weights=weights_K[at] + 1e-9)
    centre_H = np.average(means_AH[rows], axis=0, weights=weights_K + 1e-9)
    projection_DH = ridge(vectors_KD, means_AH[rows] - centre_H, weights_K)
    new_AH = means_AH.copy()
    new_AH[rows] = centre_H + vectors_KD @ projection_DH
    return new_AH


def ridge(inputs_KD: np.ndarray, targets_KH: np.ndarray, weights_K: np.ndarray) -> np.ndarray:
    """argmin over P [D, H] of sum_k w_k |x_k P - y_k|^2 / sum_k w_k + penalty |P|^2; inputs and targets are centred."""
    weights_K1 = (weights_K / weights_K.sum())[:, None]
    covariance_DD = inputs_KD.T @ (weights_K1 * inputs_KD)
    penalty = RIDGE * np.trace(covariance_DD) / len(covariance_DD) + 1e-12
    return np.linalg.solve(covariance_DD + penalty * np.eye(len(covariance_DD)), inputs_KD.T @ (weights_K1 * targets_KH))


def read_codebooks(path: Path) -> np.ndarray:
    """[L, codes, D]; StageError where the file is missing or damaged."""
    try:
        return load_file(path)["codebooks"]
    except FileNotFoundError:
        raise StageError(f"{path}: no such file; run the stage that makes it: gr2 run {path.parent.name}") from None
    except (SafetensorError, KeyError) as error:
        raise StageError(f"{path}: not codebooks ({error}); rerun: gr2 run {path.parent.name}") from None
