"""Which slates the report shows: some that improved, some that got worse, some invalid where there are any."""

from collections.abc import Sequence

import numpy as np

from stages.report.page.page import Example, Row
from stages.shared.slates.layouts.marks import ASSISTANT, END, THINK_END
from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.slates.slate import Catalog, Slate


def choose_examples(
    slates: Sequence[Slate], rankings: Rankings, ranks: np.ndarray, catalog: Catalog, count: int, seed: int
) -> list[Example]:
    """A seeded choice by kind, never by hand: improved, worse, unchanged and invalid in turn. Kinds: keys of sections.GROUPS."""
    gain = np.array([slate.target_rank for slate in slates]) - ranks
    rng = np.random.default_rng(seed)
    masks = [
        ("improved", gain > 0),
        ("got worse", gain < 0),
        ("kept", (gain == 0) & rankings.valid),
        ("invalid", ~rankings.valid),
    ]
    pools = [(kind, rng.permutation(np.flatnonzero(mask)).tolist()) for kind, mask in masks]
    chosen: list[tuple[int, str]] = []
    # In turn: a model that mostly improves would otherwise show no failure.
    while len(chosen) < count and any(pool for _, pool in pools):
        chosen += [(pool.pop(), kind) for kind, pool in pools if pool][: count - len(chosen)]
    return [example(slates[i], rankings, i, catalog, kind) for i, kind in chosen]


def example(slate: Slate, rankings: Rankings, index: int, catalog: Catalog, kind: str) -> Example:
    new_rank = {old: new for new, old in enumerate(rankings.orders[index].tolist())}
    rows = [
        Row(
            title=catalog.titles[item],
            genres=", ".join(catalog.categories[item]),
            incoming_rank=rank,
            new_rank=new_rank[rank],
            features=" ".join(slate.words(rank)),
            is_target=rank == slate.target_rank,
        )
        for rank, item in enumerate(slate.candidates)
    ]
    history = [catalog.titles[item] for item in slate.history[-5:]]
    reasoning = rankings.texts[index].split(THINK_END)[0].replace(END, "").replace(ASSISTANT, "")
    # Titles in place of semantic IDs: a reader cannot tell what <s_a_3> is.
    for item in slate.candidates:
        reasoning = reasoning.replace(catalog.sids[item], f" [{catalog.titles[item]}]")
    return Example(history, rows, reasoning.strip(), bool(rankings.valid[index]), group=kind)
