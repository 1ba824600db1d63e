"""The training slates of distillation, as the student will see them, and those of a few users that it never does."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.distil.params import DistilParams
from stages.shared.core.errors import StageError
from stages.shared.core.leakage import check_no_heldout
from stages.shared.core.outputs import DATA
from stages.shared.core.params import load_params
from stages.shared.core.schemas import INTERACTIONS, ITEMS, SIDS, read_slate_table, read_table
from stages.shared.slates.candidate_features import read_candidate_features
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.slates.layouts.domain_rules import with_mined_rules
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.slate import Catalog, Slate, load_slates, pairs_seen, permuted
from stages.shared.slates.windows import training_windows


@dataclass(frozen=True)
class DistilSlates:
    """learnt: in the order drawn; probe: of users of whom none is learnt. The candidates of both stand as they will be shown."""

    layout: Layout
    catalog: Catalog
    learnt: list[Slate]
    probe: list[Slate]
    leak_check: dict[str, int]


def read_slates(params: DistilParams) -> DistilSlates:
    options = load_params("prompt", PromptParams)
    table = read_slate_table(DATA / "retrieve/slates.parquet")
    slates = load_slates(table, read_candidate_features(DATA / "retrieve/candidate_features.parquet"), "train", options.less_features)
    interactions = read_table(DATA / "ingest/interactions.parquet", INTERACTIONS)
    catalog = Catalog.from_tables(read_table(DATA / "tokenize/sids.parquet", SIDS), read_table(DATA / "ingest/items.parquet", ITEMS))
    leak_check = check_no_heldout(pairs_seen(slates), interactions, "distil")
    # A slate of one candidate has one order.
    slates = [slate for slate in training_windows(slates, options.window, params.seed) if len(slate.candidates) > 1]
    learnt, probe = split_by_user(shown(slates, params), params)
    return DistilSlates(layout_of(catalog, with_mined_rules(options)), catalog, learnt, probe, leak_check)


def shown(slates: Sequence[Slate], params: DistilParams) -> list[Slate]:
    """The candidates of each in an order of its own if params.shuffle: in the retriever's order, copying it would look like ranking."""
    rng = np.random.default_rng([params.seed, 1])
    return [permuted(slate, rng.permutation(len(slate.candidates)).tolist()) for slate in slates] if params.shuffle else list(slates)


def split_by_user(slates: Sequence[Slate], params: DistilParams) -> tuple[list[Slate], list[Slate]]:
    """Slates to learn from, max_slates of them at most, and probe_slates of other users. StageError where the users are too few."""
    rng = np.random.default_rng([params.seed, 2])
    users = list(dict.fromkeys(slate.user for slate in slates))
    probed: set[int] = set()
    probe: list[Slate] = []
    for place in rng.permutation(len(users)):
        if len(probe) >= params.probe_slates:
            break
        probed.add(users[place])
        probe += [slate for slate in slates if slate.user == users[place]]
    learnt = [slate for slate in slates if slate.user not in probed]
    learnt = [learnt[place] for place in rng.permutation(len(learnt))]
    if not learnt:
        raise StageError(
            f"params.yaml: distil.probe_slates: {params.probe_slates} leaves none of the {len(slates)} training slates with more than one "
            "candidate to learn from; lower it, or see data/retrieve/slates.parquet"
        )
    return learnt[: params.max_slates or None], probe[: params.probe_slates]
