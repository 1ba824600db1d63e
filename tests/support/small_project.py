"""A project of 60 users and 40 items with everything that midtrain, sft and rl read, made without the stages before them."""

from pathlib import Path

import numpy as np
import polars as pl

from stages.shared.core.schemas import INTERACTIONS, ITEMS, SIDS, SLATES, write_table
from stages.shared.slates.candidate_features import CANDIDATE_FEATURES, FEATURES
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.sids import sid_text
from stages.shared.slates.slate import Catalog, Slate, order_of
from stages.shared.slates.traces import TRACES

ITEM_COUNT, USERS, K = 40, 60, 4
SPLITS = ["base"] * 8 + ["train"] * 3 + ["valid"] + ["test"] * 2
CODES = [[item // 8, item % 8, (item * 3) % 8, item % 5] for item in range(ITEM_COUNT)]
CATALOG = Catalog(
    [sid_text(codes) for codes in CODES],
    [f"Title {item} of Köln" for item in range(ITEM_COUNT)],
    [["Drama", "Comedy"] if item % 2 else ["Action"] for item in range(ITEM_COUNT)],
)
TABLES = {
    "data/ingest/interactions.parquet": INTERACTIONS,
    "data/ingest/items.parquet": ITEMS,
    "data/tokenize/sids.parquet": SIDS,
    "data/retrieve/slates.parquet": SLATES,
    "data/retrieve/candidate_features.parquet": CANDIDATE_FEATURES,
    "data/traces/traces.parquet": TRACES,
}


def own_items(user: int) -> list[int]:
    """A user's sequence, one item for each of SPLITS."""
    return [int(item) for item in np.random.default_rng([5, user]).permutation(ITEM_COUNT)[: len(SPLITS)]]


def make_slates(seed: int = 0) -> list[Slate]:
    """One slate for each position of the split `train`, the target anywhere in it, its co-occurrence level raised."""
    rng = np.random.default_rng(seed)
    slates = []
    for user in range(USERS):
        own = own_items(user)
        others = [item for item in range(ITEM_COUNT) if item not in own]
        for position in (place for place, split in enumerate(SPLITS) if split == "train"):
            candidates = [int(item) for item in rng.choice(others, K - 1, replace=False)]
            rank = int(rng.integers(K))
            candidates.insert(rank, own[position])
            bins = rng.integers(0, 10, size=(K, len(FEATURES)))
            bins[rank, 0] = min(9, bins[rank, 0] + 4)
            slates.append(Slate(len(slates), user, "train", 900 + position, own[:position], candidates, bins.tolist(), rank))
    return slates


def make_tables(slates: list[Slate], options: PromptParams) -> dict[str, pl.DataFrame]:
    """Path -> table, the keys of TABLES. Every slate has a trace whose relevances are its co-occurrence bins, so its target may lose."""
    interactions = [(u, item, i, 900 + i, SPLITS[i]) for u in range(USERS) for i, item in enumerate(own_items(u))]
    items = [(i, str(i), CATALOG.titles[i], "", CATALOG.categories[i], None, CATALOG.titles[i]) for i in range(ITEM_COUNT)]
    columns = [(s.slate, s.user, len(s.history), s.timestamp, s.split, s.history, s.candidates) for s in slates]
    targets = [([0.0] * len(s.candidates), s.candidates[s.target_rank], s.target_rank, -1, "", []) for s in slates]
    features = [
        (s.slate, rank, s.candidates[rank], *map(float, s.bins[rank]), *s.bins[rank]) for s in slates for rank in range(len(s.bins))
    ]
    traces, layout = [], layout_of(CATALOG, options)
    for s in slates:
        relevances = [bins[0] for bins in s.bins]
        order = order_of(relevances)
        texts = (layout.prompt(s), layout.trace(s, relevances), layout.answer(s, order))
        shown = list(range(len(s.candidates)))
        traces.append((s.slate, s.user, s.timestamp, shown, *texts, relevances, order, s.target_rank, 0, "targeted"))
    rows = [interactions, items, list(zip(range(ITEM_COUNT), CODES, CATALOG.sids, strict=True))]
    rows += [[(*left, *right) for left, right in zip(columns, targets, strict=True)], features, traces]
    return {path: pl.DataFrame(own, schema=schema, orient="row") for (path, schema), own in zip(TABLES.items(), rows, strict=True)}


def write_project(root: Path, tables: dict[str, pl.DataFrame] | None = None) -> None:
    """Writes `tables` (by default those of make_slates and the default prompt) under `root`."""
    for path, table in (tables or make_tables(make_slates(), PromptParams())).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        write_table(table, root / path, TABLES[path])
