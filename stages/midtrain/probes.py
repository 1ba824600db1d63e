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
from stages.midtrain.documents import Document
from stages.shared.lm.encoding import encode
from stages.shared.lm.sid_search import SidSearch
from stages.shared.slates import practice
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.slate import Catalog, order_of
from stages.shared.slates.trie import SidTrie
from stages.shared.training.trainer import collate

PROBES = 64  # documents a task
BATCH, BATCH_TOKENS = 32, 8192  # documents at once, fewer where they are long: each token has a logit for every word of the vocabulary
BEAM, HISTORY = 20, 20  # as retrieve.language_model has them by default


@dataclass(frozen=True)
class Probed:
    """What a model is asked with. `later`: interactions after the base split that no document was made from."""

    layout: Layout
    catalog: Catalog
    codes_NL: np.ndarray
    base: pl.DataFrame
    later: pl.DataFrame
    history: int
    candidates: int


def probe(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, probed: Probed, users: int, seed: int) -> dict[str, Any]:
    """For ProbeMetrics. The seed must differ from that of training: it keeps made-up documents apart from those trained on."""
    rng = np.random.default_rng(seed)
    catalog, items = probed.catalog, len(probed.catalog.sids)
    chosen = rng.choice(items, min(PROBES, items), replace=False).tolist()
    # A single item has no commonest category to tell. Where nobody has two later ones, base has to serve.
    item_rows = [row for row in _by_user(probed.later).values() if len(row) > 1] or list(_by_user(probed.base).values())
    sets: dict[str, list[Document]] = {
        "sid_to_caption": [documents.sid_to_caption(item, catalog) for item in chosen],
        "caption_to_sid": [documents.caption_to_sid(item, catalog) for item in chosen],
        "preference": list(islice(documents.preference_documents(item_rows, catalog, rng), PROBES)),
        "quoting": list(_parts_of_traces(probed, rng, quotes=True)),
        "judging": list(_parts_of_traces(probed, rng, quotes=False)),
        "sorting": list(islice(practice.sorting_documents(probed.layout, items, rng, probed.candidates), PROBES)),
    }
    figures: dict[str, Any] = {name: token_accuracy(model, tokenizer, probe_set) for name, probe_set in sets.items()}
    if users:
        figures["next_item"] = next_item(model, tokenizer, probed, users)
    return figures


def next_item(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, probed: Probed, users: int) -> dict[str, float]:
    """The first later item of the first `users` users, searched after their whole base history."""
    histories, targets = _by_user(probed.base), {user: row[0] for user, row in _by_user(probed.later).items()}
    probe_users = [user for user in sorted(histories) if user in targets][:users]
    codebook_size, items = int(probed.codes_NL.max()) + 1, len(probed.codes_NL)
    search = SidSearch(model, tokenizer, probed.codes_NL, SidTrie.from_codes(probed.codes_NL, codebook_size), BEAM, HISTORY, batch_size=64)
    # Also the items that may not come up again: nobody takes one twice.
    base_histories = [histories[user] for user in probe_users]
    k = min(10, items)
    items_BK, scores_BK = search.top_k(base_histories, base_histories, k)
    hits_BK = (items_BK == np.array([targets[user] for user in probe_users])[:, None]) & np.isfinite(scores_BK)
    gains_K = 1 / np.log2(np.arange(k) + 2.0)
    return {
        "users": len(probe_users),
        "recall@10": float(hits_BK.any(axis=1).mean()),
        "ndcg@10": float((hits_BK @ gains_K).mean()),
        "chance@10": float(np.mean([k / max(k, items - len(set(row))) for row in base_histories])),
    }


@torch.no_grad()
def token_accuracy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, probe_set: Sequence[Document]) -> float:
    """Share of the tokens with weight that are the model's likeliest, what stands before them given."""
    device = next(model.parameters()).device
    right = counted = 0
    examples = encode(probe_set, tokenizer)
    size = max(1, min(BATCH, BATCH_TOKENS // max(len(example.ids) for example in examples)))
    for start in range(0, len(examples), size):
        batch = collate(examples[start : start + size], tokenizer.pad_token_id)
        ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
        # Each position predicts the next token, so logits and ids are shifted against each other by one.
        guesses = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].argmax(-1)
        weighted = batch["weights"][:, 1:].to(device) > 0
        right += int((guesses == ids[:, 1:])[weighted].sum())
        counted += int(weighted.sum())
    return right / max(1, counted)


def _parts_of_traces(probed: Probed, rng: np.random.Generator, quotes: bool) -> Sequence[Document]:
    """Made-up slates with weight on the restated features of their traces alone, or on the relevances alone."""
    probe_set: list[Document] = []
    for _ in range(PROBES):
        slate = practice.made_up_slate(rng, len(probed.catalog.sids), probed.history, probed.candidates, probed.layout.features)
        relevances = [practice.mean_relevance(bins) for bins in slate.bins]
        document: Document = [(probed.layout.prompt(slate) + probed.layout.opening(slate), 0.0)]
        for rank, relevance in enumerate(relevances):
            document += [(probed.layout.quote(slate, rank), float(quotes)), (probed.layout.relevance(relevance), float(not quotes))]
        probe_set.append([*document, (probed.layout.answer(slate, order_of(relevances)), 0.0)])
    return probe_set


def _by_user(interactions: pl.DataFrame) -> dict[int, list[int]]:
    return dict(interactions.sort("user", "position").group_by("user", maintain_order=True).agg("item").iter_rows())
