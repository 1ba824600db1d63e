"""outputs.parquet: what every ranker answered to every slate, so that each figure can be recomputed (recorded.py reads it)."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.evaluate.test_set import HeldOut
from stages.shared.slates.rankings import Judged


def outputs_table(held: HeldOut, judged: Mapping[str, Judged], ranks: Mapping[str, NDArray[np.int_]]) -> pl.DataFrame:
    """One row a ranker and slate."""
    parts = [
        pl.DataFrame(
            {
                "slate": [slate.slate for slate in held.slates],
                "user": held.users,
                "position": held.positions,
                "model": [name] * len(held.slates),
                "target_rank": held.targets,
                "new_rank": ranks[name].astype(np.int32),
                "order": own.orders.tolist(),
                "fault": own.faults,
                "text": own.texts,
            }
        )
        for name, own in judged.items()
    ]
    return pl.concat(parts)
