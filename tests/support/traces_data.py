"""A small project for the traces stage: 40 items, slates whose co-occurrence level tells of the target."""

import numpy as np
import polars as pl
import yaml

from stages.shared.core.schemas import INTERACTIONS, ITEMS, SIDS, SLATES, write_table
from stages.shared.slates.candidate_features import CANDIDATE_FEATURES, FEATURES
from stages.shared.slates.layouts.compact import CompactLayout
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.sids import sid_text
from stages.shared.slates.slate import RELEVANCE_LEVELS, Catalog, Slate
from stages.traces.out_of_time import ScoredSlate, score_out_of_time
from stages.traces.params import ScorerParams

ITEM_COUNT, USERS, K = 40, 30, 5
OPTIONS = PromptParams()
SCORER = ScorerParams(rounds=20, leaves=7, min_leaf=10, members=2)
CATALOG = Catalog(
    [sid_text([item // 7, item % 7]) for item in range(ITEM_COUNT)],
    [f"Title {item}" for item in range(ITEM_COUNT)],
    [["Drama", "Comedy"] if item % 2 else ["Action"] for item in range(ITEM_COUNT)],
)

LAYOUT = CompactLayout(CATALOG, OPTIONS)


def make_slates(per_user: int = 10, seed: int = 0) -> list[Slate]:
    """Training slates by time; user u's slate n has the target u's (10 + n)-th item, histories hold the items before."""
    rng = np.random.default_rng(seed)
    slates = []
    for number in range(USERS * per_user):
        user, step = number % USERS, number // USERS
        own = own_items(user)
        others = [item for item in range(ITEM_COUNT) if item not in own]
        candidates = [int(item) for item in rng.choice(others, K - 1, replace=False)]
        rank = int(rng.integers(K))
        candidates.insert(rank, own[10 + step])
        bins = rng.integers(0, 10, size=(K, len(FEATURES)))
        bins[rank, 0] = min(9, bins[rank, 0] + 4)
        slates.append(Slate(number, user, "train", 1000 + number, own[: 10 + step], candidates, bins.tolist(), rank))
    return slates


def own_items(user: int) -> list[int]:
    """A user's sequence: 10 base, 10 train, 1 valid, 1 test."""
    return [int(item) for item in np.random.default_rng([99, user]).permutation(ITEM_COUNT)[:22]]


def scored_slates(folds: int = 3, seed: int = 0, layout: Layout = LAYOUT) -> list[ScoredSlate]:
    return score_out_of_time(make_slates(seed=seed), folds, layout, 7, 1, SCORER)


def many_slates(count: int, k: int = 10) -> list[ScoredSlate]:
    """Slates of random candidates and features, with a scorer that knows nothing: what only chance can get right."""
    rng = np.random.default_rng(5)
    rows = []
    for number in range(count):
        items = rng.permutation(ITEM_COUNT).tolist()
        bins = rng.integers(0, 10, size=(k, len(FEATURES))).tolist()
        slate = Slate(number, number, "train", 1000 + number, items[k : k + 8], items[:k], bins, int(rng.integers(k)))
        scores = rng.normal(size=k)
        rows.append(ScoredSlate(slate, 1, scores, np.linspace(-2.0, 2.0, RELEVANCE_LEVELS - 1), 1.0, scores))
    return rows


def write_project(root, slates: list[Slate]) -> None:
    """Everything the stage reads, under `root`."""
    for stage in ("ingest", "tokenize", "retrieve"):
        (root / "data" / stage).mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump({"prompt": OPTIONS.model_dump()}))
    splits = ["base"] * 10 + ["train"] * 10 + ["valid", "test"]
    rows = [(u, item, i, 900 + i, splits[i]) for u in range(USERS) for i, item in enumerate(own_items(u))]
    write_table(pl.DataFrame(rows, schema=INTERACTIONS, orient="row"), root / "data/ingest/interactions.parquet", INTERACTIONS)
    items = [(i, str(i), CATALOG.titles[i], "", CATALOG.categories[i], None, "") for i in range(ITEM_COUNT)]
    write_table(pl.DataFrame(items, schema=ITEMS, orient="row"), root / "data/ingest/items.parquet", ITEMS)
    sids = [(i, [i // 7, i % 7], CATALOG.sids[i]) for i in range(ITEM_COUNT)]
    write_table(pl.DataFrame(sids, schema=SIDS, orient="row"), root / "data/tokenize/sids.parquet", SIDS)
    shown = [(s.slate, s.user, 0, s.timestamp, s.split, s.history, s.candidates) for s in slates]
    targets = [([0.0] * K, s.candidates[s.target_rank], s.target_rank, -1, "", []) for s in slates]
    table = [(*left, *right) for left, right in zip(shown, targets, strict=True)]
    write_table(pl.DataFrame(table, schema=SLATES, orient="row"), root / "data/retrieve/slates.parquet", SLATES)
    features = [
        (s.slate, rank, item, *map(float, bins), *bins)
        for s in slates
        for rank, (item, bins) in enumerate(zip(s.candidates, s.bins, strict=True))
    ]
    write_table(
        pl.DataFrame(features, schema=CANDIDATE_FEATURES, orient="row"),
        root / "data/retrieve/candidate_features.parquet",
        CANDIDATE_FEATURES,
    )
