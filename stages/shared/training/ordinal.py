"""Soft labels for words that lie on a scale (Díaz and Marathe 2019, Soft Labels for Ordinal Regression).

A relevance one level off is nearly right, which cross-entropy does not know: from one label a word, a model spreads its uncertainty over
levels that happen to be common, and its likeliest word is not where its mean is. With labels spread over the neighbours it is nearer to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class OrdinalWords:
    """ids: the token of each level, lowest first. spread: standard deviation of the labels, in levels."""

    ids: Sequence[int]
    spread: float

    def soft_labels(self) -> Tensor:
        """[levels, levels]: row k is the label of level k, falling off as a normal distribution on both sides."""
        levels = torch.arange(len(self.ids), dtype=torch.float32)
        return torch.softmax(-0.5 * ((levels[:, None] - levels) / self.spread) ** 2, dim=1)

    def losses(self, logits_NV: Tensor, targets_N: Tensor, losses_N: Tensor) -> Tensor:
        """`losses_N` with the cross-entropy of a soft label, minus the label's own entropy, wherever the target is one of these words."""
        ids = torch.tensor(list(self.ids), device=logits_NV.device)
        is_level_NL = targets_N[:, None] == ids
        rows = is_level_NL.any(dim=1).nonzero()[:, 0]
        if not len(rows):
            return losses_N
        labels_LL = self.soft_labels().to(logits_NV.device)
        labels_RL = labels_LL[is_level_NL[rows].int().argmax(dim=1)]
        logp_RL = torch.log_softmax(logits_NV[rows].float(), dim=-1)[:, ids]
        entropy_R = -(labels_RL * labels_RL.clamp_min(1e-12).log()).sum(dim=1)
        return losses_N.index_put((rows,), -(labels_RL * logp_RL).sum(dim=1) - entropy_R)
