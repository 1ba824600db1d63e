"""Mines rules of the domain for prompts (GR2's domain priming: shampoo -> conditioner -> styling), as data.

- follows: kinds of items (stages/shared/slates/features/kinds.py) that users took right after another kind more often than elsewhere;
- holds: categories of the catalogue, and the kinds that stand in them.
"""

from collections import Counter, defaultdict

import polars as pl

from stages.shared.slates.features.kinds import kind_names
from stages.shared.slates.layouts.domain_rules import Follows, Holds, Rules

MOST = 50  # rules of a sort that are kept
LEAST_PAIRS = 10
LEAST_TIMES = 1.5  # as often as elsewhere: less is no news
PRIOR = 20.0  # pairs that are added as chance would deal them, so that few pairs prove little
INSIDE = 0.95  # of the items of a kind; fewer, and the kind does not stand in the category
SHOWN = 8  # kinds of a category, the commonest


def mine(base: pl.DataFrame, items: pl.DataFrame) -> Rules:
    """base: the interactions of the split `base` alone, which no slate has its target in."""
    categories: list[list[str] | None] = items.sort("item")["categories"].to_list()
    kinds = kind_names(categories)
    return Rules(follows=_follows(base, kinds), holds=_holds(categories, kinds))


def _follows(base: pl.DataFrame, kinds: list[str]) -> list[Follows]:
    """Those first that have most pairs beyond chance."""
    of_item = pl.DataFrame({"item": range(len(kinds)), "kind": kinds}, schema={"item": base.schema["item"], "kind": pl.String})
    taken = base.sort("user", "position").join(of_item, on="item", maintain_order="left")
    pairs = taken.select("user", before="kind", after=pl.col("kind").shift(-1).over("user")).drop_nulls()
    pairs = pairs.filter((pl.col("before") != "") & (pl.col("after") != ""))
    if pairs.is_empty():
        return []
    counted = (
        pairs.group_by("before", "after")
        .len("pairs")
        .with_columns(total=pl.col("pairs").sum().over("before"), share=pl.col("pairs").sum().over("after") / pairs.height)
    ).with_columns(times=(pl.col("pairs") + PRIOR * pl.col("share")) / ((pl.col("total") + PRIOR) * pl.col("share")))
    # A kind that follows itself is in every prompt: the history and the categories show it.
    news = counted.filter(
        (pl.col("before") != pl.col("after")) & (pl.col("pairs") >= LEAST_PAIRS) & (pl.col("times") >= LEAST_TIMES)
    ).with_columns(beyond=pl.col("pairs") * (1 - 1 / pl.col("times")))
    best = news.sort("beyond", "before", "after", descending=[True, False, False]).head(MOST)
    return [
        Follows(before, after, round(times, 2), pairs)
        for before, after, times, pairs in best.select("before", "after", "times", "pairs").iter_rows()
    ]


def _holds(categories: list[list[str] | None], kinds: list[str]) -> list[Holds]:
    """Those first that hold most items."""
    of_kind, together = Counter(kinds), Counter[tuple[str, str]]()
    for names, kind in zip(categories, kinds, strict=True):
        together.update((name, kind) for name in set(names or []) if name != kind)
    inside: dict[str, list[str]] = defaultdict(list)
    for (name, kind), count in together.items():
        if count >= INSIDE * of_kind[kind]:
            inside[name].append(kind)
    # One kind in a category is a kind with two names.
    rules = [
        Holds(name, sorted(held, key=lambda kind: (-of_kind[kind], kind))[:SHOWN], sum(of_kind[kind] for kind in held))
        for name, held in inside.items()
        if len(held) > 1
    ]
    return sorted(rules, key=lambda rule: (-rule.items, rule.category))[:MOST]
