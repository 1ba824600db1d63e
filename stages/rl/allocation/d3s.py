"""D3S (Wang et al. 2025, A Dynamic Dual-Level Down-Sampling Framework for Efficient Policy Optimization, arXiv 2509.22115).

Answers: the update learns from the m of n whose advantages have the greatest variance, which bounds the norm of the policy gradient from
above; advantages are those within whole groups. Tokens: of these answers' tokens the loss takes those of the greatest |A_t| H_t, where the
policy is uncertain and much depends on it. Entropies come from the forward pass that the loss needs anyway, so tokens are chosen among
those of one pass (rl.micro_prompts), before the step's first update. Both shares may rise from step to step.
"""

import math
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor


def widest(values: Sequence[float], keep: int, kinds: Sequence[Hashable]) -> list[int]:
    """The places of the `keep` values of greatest variance, ascending.

    Such a subset is always the lowest a and the highest keep - a of all, for some a (Xu et al. 2025, arXiv 2504.13818), so keep + 1 are
    compared; of equal ones the evenest. Of equal values those come first whose kind (the order that was answered) is not yet among them.
    """
    seen: dict[tuple[float, Hashable], int] = {}
    repeats = []
    for pair in zip(values, kinds, strict=True):
        repeats.append(seen.get(pair, 0))
        seen[pair] = repeats[-1] + 1
    low = sorted(range(len(values)), key=lambda place: (values[place], repeats[place], place))
    high = sorted(range(len(values)), key=lambda place: (-values[place], repeats[place], place))
    subsets = []
    for count in range(keep + 1):
        lowest = set(low[:count])
        chosen = low[:count] + [place for place in high if place not in lowest][: keep - count]
        variance = float(np.var([values[place] for place in chosen])) if chosen else 0.0
        # Rounded: sums of equal numbers in another order are no difference.
        subsets.append((round(variance, 9), -abs(2 * count - keep), chosen))
    return sorted(max(subsets, key=lambda subset: subset[:2])[2])


def telling_tokens(advantage_B: Tensor, entropy_BT: Tensor, mask_BT: Tensor, keep: int) -> Tensor:
    """bool [B, T]: of the tokens that the mask counts the `keep` of the greatest |A| H; of equal ones the first."""
    weight_BT = (advantage_B.abs()[:, None] * entropy_BT).masked_fill(mask_BT == 0, -1.0)
    chosen = weight_BT.flatten().sort(descending=True, stable=True).indices[:keep]
    return torch.zeros(weight_BT.numel(), dtype=torch.bool, device=mask_BT.device).index_fill(0, chosen, True).view_as(mask_BT)


def tokens_kept(count: int, share: float) -> int:
    """Of `count` tokens; one at least."""
    return math.ceil(round(share * count, 6))


def share_at(step: int, share: float, relax: int) -> float:
    """The share that step `step` (from 0) keeps: rising evenly to 1 over `relax` steps; 0: it stays."""
    return share + (1 - share) * min(1.0, step / relax) if relax else share
