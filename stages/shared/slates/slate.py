"""A slate with all that a prompt may say about it, and how relevant a trace finds its candidates."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import polars as pl

from stages.shared.slates.candidate_features import FEATURES, feature_tokens, features_of

# Of the layout `compact`: s0 (least) .. s23. Two levels more than twice the candidates: fewer give ties that only the order shown can
# break, more are harder to tell apart and to sort (docs/training.md).
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
    prompt. `grades` [K]: what each candidate was worth, 0 = not taken; empty where the target alone counts. Whole numbers as logged."""

    slate: int
    user: int
    split: str
    timestamp: int
    history: list[int]
    candidates: list[int]
    bins: list[list[int]]
    target_rank: int
    features: tuple[str, ...] = tuple(FEATURES)
    grades: tuple[float, ...] = ()

    def words(self, rank: int) -> list[str]:
        """The features of a candidate as the prompt spells them."""
        return feature_tokens(self.features, self.bins[rank])

    @property
    def relevant(self) -> tuple[int, ...]:
        """[K]: the grades as logged, the target's 1 where there are none."""
        return tuple(map(int, self.grades)) or tuple(int(rank == self.target_rank) for rank in range(len(self.candidates)))

    @property
    def best_ranks(self) -> list[int]:
        """The target's rank, or where there are grades those of the candidates with the highest."""
        if not self.grades:
            return [self.target_rank]
        return [rank for rank, grade in enumerate(self.grades) if grade == max(self.grades)]

    def at(self, ranks: Sequence[int]) -> "Slate":
        """The slate with the candidates at these ranks alone, in this order; target_rank -1 where the target is not among them."""
        return replace(
            self,
            candidates=[self.candidates[rank] for rank in ranks],
            bins=[self.bins[rank] for rank in ranks],
            target_rank=list(ranks).index(self.target_rank) if self.target_rank in ranks else -1,
            grades=tuple(self.grades[rank] for rank in ranks) if self.grades else (),
        )


def load_slates(slates: pl.DataFrame, feature_table: pl.DataFrame, split: str, less: Collection[str] = ()) -> list[Slate]:
    """The slates of `split` that hold their target, ordered by time; those marked injected or permuted like others.

    less: features of the table that no prompt shows (prompt.less_features), and that the slates then do not have.
    """
    chosen = slates.filter((pl.col("split") == split) & (pl.col("target_rank") >= 0)).sort("timestamp", "slate")
    features = tuple(feature for feature in features_of(feature_table) if feature not in less)
    columns = [f"{feature}_bin" for feature in features]
    grouped = feature_table.sort("slate", "rank").group_by("slate", maintain_order=True).agg(pl.concat_list(columns).alias("bins"))
    bins = dict(grouped.iter_rows())
    told = ("slate", "user", "split", "timestamp", "history", "candidates", "target_rank")
    rows = chosen.select(told).iter_rows(named=True)
    graded = chosen["grades"].to_list() if "grades" in chosen.columns else [()] * chosen.height
    return [Slate(**row, bins=bins[row["slate"]], features=features, grades=tuple(own)) for row, own in zip(rows, graded, strict=True)]


def permuted(slate: Slate, order: Sequence[int]) -> Slate:
    """`slate` with the candidate at order[p] at position p; its features and the target's rank move along."""
    return slate.at(order)


def top_categories(history: Sequence[int], catalog: Catalog, count: int) -> list[str]:
    """The commonest categories of the history, ties by name."""
    counts = Counter(category for item in history for category in catalog.categories[item])
    return sorted(counts, key=lambda category: (-counts[category], category))[:count]


def order_of(relevances: Sequence[int]) -> list[int]:
    """Ranks as shown by falling relevance; equals keep the order shown."""
    return sorted(range(len(relevances)), key=lambda rank: (-relevances[rank], rank))


def pairs_seen(slates: Sequence[Slate]) -> pl.DataFrame:
    """Every (user, item) that the slates hold as history, or as a candidate that was taken."""
    taken = [[item for item, grade in zip(slate.candidates, slate.relevant, strict=True) if grade] for slate in slates]
    pairs = {(slate.user, item) for slate, items in zip(slates, taken, strict=True) for item in (*slate.history, *items)}
    return pl.DataFrame(sorted(pairs), schema={"user": pl.Int32, "item": pl.Int32}, orient="row")
