"""A slate with all that a prompt may say about it, and how relevant a trace finds its candidates."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import polars as pl

from stages.shared.slates.candidate_features import FEATURES, feature_tokens, features_of

# s0 (least) .. s23. Two levels more than twice the candidates: fewer give ties that only the order shown can break, more are harder to
# tell apart and to sort (docs/training.md).
RELEVANCE_LEVELS = 24


@dataclass(frozen=True)
class Catalog:
    """What a prompt can say about an item, by item id."""

    sids: list[str]
    titles: list[str]
    categories: list[list[str]]

    @classmethod
    def from_tables(cls, sids: pl.DataFrame, items: pl.DataFrame) -> "Catalog":
        return cls(sids.sort("item")["sid"].to_list(), items["title"].to_list(), [c or [] for c in items["categories"].to_list()])


@dataclass(frozen=True)
class Slate:
    """One slate with its candidate features. `bins`: [K][features] in the order of `features`; `target_rank` counts from 0 and is in no
    prompt."""

    slate: int
    user: int
    split: str
    timestamp: int
    history: list[int]
    candidates: list[int]
    bins: list[list[int]]
    target_rank: int
    features: tuple[str, ...] = tuple(FEATURES)

    def words(self, rank: int) -> list[str]:
        """The features of a candidate as the prompt spells them."""
        return feature_tokens(self.features, self.bins[rank])


def load_slates(slates: pl.DataFrame, feature_table: pl.DataFrame, split: str, less: Collection[str] = ()) -> list[Slate]:
    """The slates of `split` that hold their target, ordered by time; those marked injected or permuted like others.

    less: features of the table that no prompt shows (prompt.less_features), and that the slates then do not have.
    """
    chosen = slates.filter((pl.col("split") == split) & (pl.col("target_rank") >= 0)).sort("timestamp", "slate")
    features = tuple(feature for feature in features_of(feature_table) if feature not in less)
    columns = [f"{feature}_bin" for feature in features]
    grouped = feature_table.sort("slate", "rank").group_by("slate", maintain_order=True).agg(pl.concat_list(columns).alias("bins"))
    bins = dict(grouped.iter_rows())
    rows = chosen.select("slate", "user", "split", "timestamp", "history", "candidates", "target_rank").iter_rows(named=True)
    return [Slate(**row, bins=bins[row["slate"]], features=features) for row in rows]


def permuted(slate: Slate, order: Sequence[int]) -> Slate:
    """`slate` with the candidate at order[p] at position p; its features and the target's rank move along."""
    return replace(
        slate,
        candidates=[slate.candidates[rank] for rank in order],
        bins=[slate.bins[rank] for rank in order],
        target_rank=list(order).index(slate.target_rank) if slate.target_rank >= 0 else -1,
    )


def top_categories(history: Sequence[int], catalog: Catalog, count: int) -> list[str]:
    """The commonest categories of the history, ties by name."""
    counts = Counter(category for item in history for category in catalog.categories[item])
    return sorted(counts, key=lambda category: (-counts[category], category))[:count]


def order_of(relevances: Sequence[int]) -> list[int]:
    """Ranks as shown by falling relevance; equals keep the order shown."""
    return sorted(range(len(relevances)), key=lambda rank: (-relevances[rank], rank))


def pairs_seen(slates: Sequence[Slate]) -> pl.DataFrame:
    """Every (user, item) that the slates hold as history or target."""
    pairs = {(slate.user, item) for slate in slates for item in (*slate.history, slate.candidates[slate.target_rank])}
    return pl.DataFrame(sorted(pairs), schema={"user": pl.Int32, "item": pl.Int32}, orient="row")
