"""Which items are taken one after the other: the pairs of the contrastive loss."""

from typing import Self

import numpy as np
import polars as pl
import torch

from stages.shared.core.leakage import training_interactions


class Cooccurrence:
    """For every item the items some user took right before or after it in the base split, in compressed sparse rows."""

    def __init__(self, offsets: torch.Tensor, partners: torch.Tensor):
        self.offsets, self.partners = offsets, partners

    @classmethod
    def count(cls, interactions: pl.DataFrame, items: int) -> Self:
        base = training_interactions(interactions, ("base",)).sort("user", "position")
        # An item taken twice in a row would be its own positive pair.
        following = (
            base.select("user", "item", then=pl.col("item").shift(-1).over("user")).drop_nulls().filter(pl.col("item") != pl.col("then"))
        )
        one, other = following["item"].to_numpy(), following["then"].to_numpy()
        anchors, partners = np.concatenate([one, other]), np.concatenate([other, one])
        # Stable: partners of an item stay in the order of the table, so a seed draws the same ones everywhere.
        order = np.argsort(anchors, kind="stable")
        offsets = np.r_[0, np.cumsum(np.bincount(anchors, minlength=items))]
        return cls(torch.from_numpy(offsets), torch.from_numpy(partners[order].astype(np.int64)))

    def draw(self, items_B: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """(places in the batch that have a partner, one partner each, in proportion to how often they were taken together)."""
        first_B, count_B = self.offsets[items_B], self.offsets[items_B + 1] - self.offsets[items_B]
        # A number for every item, also for those without a partner: what one item draws does not depend on the others.
        pick_B = first_B + (torch.rand(len(items_B), generator=generator) * count_B).long()
        having = torch.nonzero(count_B > 0).flatten()
        return having, self.partners[pick_B[having]]
