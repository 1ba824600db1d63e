"""What mid-training has taught: each task asked on documents that were not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import polars as pl
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.midtrain import documents
from stages.midtrain.documents import Document, Wording
from stages.shared.lm.encoding import encode
from stages.shared.lm.sid_search import SidSearch
from stages.shared.slates import practice
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.slate import Catalog, order_of
from stages.shared.slates.trie import SidTrie
from stages.shared.training.trainer import collate

EXACT = ("sid_to_title", "sid_to_caption", "caption_to_sid")  # of which whole documents are counted too
BATCH = 32
LOGITS = 1 << 26  # numbers held at once, 256 MB: with 150k tokens in the vocabulary a batch of dialogues would take ten GB
BEAM, HISTORY = 20, 20  # as retrieve.language_model has them by default


@dataclass(frozen=True)
class Probed:
    """What a model is asked with. `later`: interactions after the base split that no document was made from."""

    layout: Layout
    wording: Wording
    catalog: Catalog
    codes_NL: np.ndarray
    base: pl.DataFrame
    later: pl.DataFrame
    history: int
    candidates: int


def probe(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, probed: Probed, documents_a_task: int, users: int, seed: int
) -> dict[str, Any]:
    """For ProbeMetrics. The seed must differ from that of training: it keeps made-up documents apart from those trained on."""
    rng = np.random.default_rng(seed)
    wording, items = probed.wording, len(probed.catalog.sids)
    chosen = rng.choice(items, min(documents_a_task, items), replace=False).tolist()
    # A single item has no commonest category to tell. Where nobody has two later ones, base has to serve.
    item_rows = [row for row in _by_user(probed.later).values() if len(row) > 1] or list(_by_user(probed.base).values())
    sets: dict[str, list[Document]] = {
        "sid_to_title": [wording.sid_to_title(item, rng) for item in chosen],
        "sid_to_caption": [wording.sid_to_caption(item, rng) for item in chosen],
        "caption_to_sid": [wording.caption_to_sid(item, rng) for item in chosen],
        "preference": list(islice(documents.preference_documents(item_rows, wording, rng), documents_a_task)),
        "quoting": list(_parts_of_traces(probed, rng, documents_a_task, quotes=True)),
        "judging": list(_parts_of_traces(probed, rng, documents_a_task, quotes=False)),
        "sorting": list(islice(practice.sorting_documents(probed.layout, items, rng, probed.candidates), documents_a_task)),
    }
    figures: dict[str, Any] = {}
    for name, probe_set in sets.items():
        figures[name], exact = accuracy(model, tokenizer, probe_set)
        if name in EXACT:
            figures[f"{name}_exact"] = exact
    if users:
        figures["next_item"] = next_item(model, tokenizer, probed, users)
    return figures


@dataclass(frozen=True)
class NextItems:
    """Of B users: rank_B int, that of the next item among K, counted from 0, -1 where it is not among them; free_B as SidSearch.free has
    it; chance: the expected share of targets among K items of a random order."""

    users: list[int]
    rank_B: np.ndarray
    free_B: np.ndarray
    chance: float

    def recall(self, cut: int) -> np.ndarray:
        """[B], whether the target is among the first `cut`."""
        return ((self.rank_B >= 0) & (self.rank_B < cut)).astype(np.float64)

    def ndcg(self, cut: int) -> np.ndarray:
        return self.recall(cut) / np.log2(np.maximum(self.rank_B, 0) + 2.0)


def search_next_items(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    codes_NL: np.ndarray,
    base: pl.DataFrame,
    later: pl.DataFrame,
    users: int,
    batch_size: int = 64,
) -> NextItems:
    """The first item in `later` of the first `users` users, searched in the whole catalogue after their history in `base`."""
    histories, targets = _by_user(base), {user: row[0] for user, row in _by_user(later).items()}
    probe_users = [user for user in sorted(histories) if user in targets][:users]
    codebook_size, items = int(codes_NL.max()) + 1, len(codes_NL)
    search = SidSearch(model, tokenizer, codes_NL, SidTrie.from_codes(codes_NL, codebook_size), BEAM, HISTORY, batch_size)
    # Also the items that may not come up again: nobody takes one twice.
    base_histories = [histories[user] for user in probe_users]
    k = min(10, items)
    items_BK, scores_BK = search.top_k(base_histories, base_histories, k)
    hits_BK = (items_BK == np.array([targets[user] for user in probe_users])[:, None]) & np.isfinite(scores_BK)
    rank_B = np.where(hits_BK.any(axis=1), hits_BK.argmax(axis=1), -1)
    chance = float(np.mean([k / max(k, items - len(set(row))) for row in base_histories]))
    return NextItems(probe_users, rank_B, search.free(base_histories), chance)


def next_item(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, probed: Probed, users: int) -> dict[str, float]:
    """For NextItemMetrics."""
    found = search_next_items(model, tokenizer, probed.codes_NL, probed.base, probed.later, users)
    return {
        "users": len(found.users),
        **{f"recall@{cut}": float(found.recall(cut).mean()) for cut in (5, 10)},
        **{f"ndcg@{cut}": float(found.ndcg(cut).mean()) for cut in (5, 10)},
        "chance@10": found.chance,
        "free_formed": float((found.free_B > -2).mean()),
        "free_valid": float((found.free_B >= 0).mean()),
    }


@torch.no_grad()
def accuracy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, probe_set: Sequence[Document]) -> tuple[float, float]:
    """(share of the tokens with weight that are the model's likeliest, what stands before them given; share of documents of which all are).

    What is all right this way is what greedy decoding writes.
    """
    device = next(model.parameters()).device
    right = counted = exact = 0
    examples = encode(probe_set, tokenizer)
    size = max(1, min(BATCH, LOGITS // (max(len(example.ids) for example in examples) * len(tokenizer))))
    for start in range(0, len(examples), size):
        batch = collate(examples[start : start + size], tokenizer.pad_token_id)
        ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
        # Each position predicts the next token, so logits and ids are shifted against each other by one.
        guesses = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].argmax(-1)
        weighted, hits = batch["weights"][:, 1:].to(device) > 0, guesses == ids[:, 1:]
        right += int(hits[weighted].sum())
        counted += int(weighted.sum())
        exact += int((hits | ~weighted).all(dim=1).sum())
    return right / max(1, counted), exact / max(1, len(probe_set))


def _parts_of_traces(probed: Probed, rng: np.random.Generator, count: int, quotes: bool) -> Sequence[Document]:
    """Made-up slates with weight on the restated features of their traces alone, or on the relevances alone."""
    probe_set: list[Document] = []
    for _ in range(count):
        slate = practice.made_up_slate(rng, len(probed.catalog.sids), probed.history, probed.candidates, probed.layout.features)
        relevances = [practice.judged_by_rule(probed.layout, bins) for bins in slate.bins]
        document: Document = [(probed.layout.prompt(slate) + probed.layout.opening(slate), 0.0)]
        for rank, relevance in enumerate(relevances):
            document += [(probed.layout.quote(slate, rank), float(quotes)), (probed.layout.relevance(rank, relevance), float(not quotes))]
        probe_set.append([*document, (probed.layout.answer(slate, order_of(relevances)), 0.0)])
    return probe_set


def _by_user(interactions: pl.DataFrame) -> dict[int, list[int]]:
    return dict(interactions.sort("user", "position").group_by("user", maintain_order=True).agg("item").iter_rows())
