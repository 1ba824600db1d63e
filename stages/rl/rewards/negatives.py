"""What a wrong answer costs by how likely it was (ReRe, Tan et al. 2025, Reinforced Preference Optimization for Recommendation)."""

import math
from collections.abc import Sequence


def rank_aware_negatives(is_hit: Sequence[bool], logprobs: Sequence[float]) -> list[float]:
    """Of each answer of one slate: 0 for a hit; for a miss -(1 / log2(i + 2)) / sum_j 1 / log2(j + 2), and 0 in a group without a hit.

    i counts from 0 over the group's answers, the likeliest first, as a beam has them; j over all of them. So the likeliest mistakes cost
    most, and a slate nobody gets right costs nothing. logprobs: of whole answers, by which they are ordered; equals as they stand.
    """
    if not any(is_hit):
        return [0.0] * len(is_hit)
    order = sorted(range(len(is_hit)), key=lambda number: (-logprobs[number], number))
    place_of = {number: place for place, number in enumerate(order)}
    whole = sum(1 / math.log2(place + 2) for place in range(len(is_hit)))
    return [0.0 if hit else -1 / math.log2(place_of[number] + 2) / whole for number, hit in enumerate(is_hit)]
