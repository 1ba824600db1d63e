"""D3S (Wang et al. 2025, A Dynamic Dual-Level Down-Sampling Framework for Efficient Policy Optimization, arXiv 2509.22115): answers.

The update learns from the m of n answers whose advantages have the greatest variance, which bounds the norm of the policy gradient from
above; advantages are those within whole groups. The share m / n may rise from step to step. (The lower level, a choice of tokens by
|A| times entropy, is not here: entropies of tokens do not exist before the forward pass that has to be saved.)
"""

from collections.abc import Hashable, Sequence

import numpy as np


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


def share_at(step: int, share: float, relax: int) -> float:
    """The share of answers that step `step` (from 0) keeps: rising evenly to 1 over `relax` steps; 0: it stays."""
    return share + (1 - share) * min(1.0, step / relax) if relax else share
