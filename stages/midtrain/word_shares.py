"""What a new token means in words that a checkpoint knows: a mean of their rows, as shares that sum to 1."""

import re
from collections.abc import Sequence

import numpy as np
import scipy.sparse
from scipy.sparse import csr_matrix
from transformers import PreTrainedTokenizerBase

from stages.midtrain.documents import caption
from stages.shared.slates.sids import CODE_TOKEN
from stages.shared.slates.slate import Catalog

# Shapes: A added tokens, N items, T words (tokens that the checkpoint has trained rows of), L levels.


def code_of(token: str) -> tuple[int, int] | None:
    """(level, code) of a code's token, None of any other."""
    match = CODE_TOKEN.fullmatch(token)
    return (ord(match[1]) - ord("a"), int(match[2])) if match else None


def carriers(token: str, codes_NL: np.ndarray) -> np.ndarray:
    """The items whose SID holds the token of a code."""
    level, code = code_of(token) or (0, -1)
    return np.flatnonzero(codes_NL[:, level] == code)


def word_shares(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str], known: Sequence[int], catalog: Catalog, codes_NL: np.ndarray
) -> csr_matrix:
    """[A, T], T in the order of `known`, the ids that count as words.

    A code is the mean of the items that carry it, each the mean of the words of its title and categories; a code that no item carries,
    and a token without a word, the mean of all items. A mark of the layout is the mean of the words within it (`<|user|>`: user).
    """
    item_NT = _shares_of_texts(tokenizer, [caption(item, catalog) for item in range(len(catalog.sids))], known)
    own_NT = [item_NT[carriers(token, codes_NL)] if code_of(token) else _mark(tokenizer, token, known) for token in tokens]
    everything = _sum(item_NT)
    rows = [total if (total := _sum(rows_NT)).nnz else everything for rows_NT in own_NT]
    return _to_sum_one(scipy.sparse.vstack(rows, format="csr"))


def _mark(tokenizer: PreTrainedTokenizerBase, token: str, known: Sequence[int]) -> csr_matrix:
    return _shares_of_texts(tokenizer, [" ".join(re.findall(r"[a-z]+", token))], known)


def _shares_of_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], known: Sequence[int]) -> csr_matrix:
    """[texts, T]; a text without words has an empty row."""
    column = {token_id: place for place, token_id in enumerate(known)}
    rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    # No title spells an added token (ingest cleans titles); where one does all the same, it is no word.
    places = [[column[token_id] for token_id in row if token_id in column] for row in rows]
    starts = np.cumsum([0, *map(len, places)])
    flat = np.array([place for row in places for place in row], dtype=np.int64)
    return _to_sum_one(csr_matrix((np.ones(len(flat)), flat, starts), shape=(len(texts), len(known))))


def _sum(rows: csr_matrix) -> csr_matrix:
    return csr_matrix(rows.sum(axis=0))


def _to_sum_one(matrix: csr_matrix) -> csr_matrix:
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    return scipy.sparse.diags(1 / np.where(sums > 0, sums, 1)) @ matrix
