"""Rewards of a permutation, in ranks of the initial ranking, from 0. gains: of each candidate, in the same order.

grades: of each candidate, 0 = not taken, where slates were logged and more than the target may count; else empty.
"""

import math
from collections.abc import Sequence
from itertools import combinations, pairwise

SAME = 1e-9  # of NDCG: sums of the same terms in another order are no gain


def promotion(order: Sequence[int], target_rank: int) -> float:
    """R_rank = (rank before - rank after) / K in [-1, 1] (GR2, arXiv 2602.07774)."""
    return (target_rank - order.index(target_rank)) / len(order)


def gains_of(count: int, target_rank: int, grades: Sequence[float] = ()) -> list[float]:
    """2^grade - 1, without grades 1 for the target: of each of `count` candidates."""
    return [2.0**grade - 1 for grade in grades] if grades else [float(rank == target_rank) for rank in range(count)]


def graded_promotion(order: Sequence[int], gains: Sequence[float]) -> float:
    """The promotion of everything that has a gain, averaged by it; in [-1, 1]."""
    return sum(gain * promotion(order, rank) for rank, gain in enumerate(gains) if gain) / sum(gains)


def ndcg(order: Sequence[int], gains: Sequence[float]) -> float:
    """sum gain / log2(rank + 2), over the best there is; 0 where no candidate has a gain. In [0, 1]."""
    best = sum(gain / math.log2(place + 2) for place, gain in enumerate(sorted(gains, reverse=True)))
    return sum(gains[rank] / math.log2(place + 2) for place, rank in enumerate(order)) / best if best > 0 else 0.0


def ndcg_gain(order: Sequence[int], gains: Sequence[float]) -> float:
    """NDCG minus that of the initial ranking: graded, and moves near the top count most (GR2 Technical Report, arXiv 2606.31984)."""
    return ndcg(order, gains) - ndcg(range(len(order)), gains)


def auc(order: Sequence[int], gains: Sequence[float]) -> float:
    """Share of the pairs of candidates with different gains that stand in the right order; 0.5 where there is no such pair. In [0, 1]."""
    ranked = [gains[rank] for rank in order]
    pairs = [(earlier, later) for earlier, later in combinations(ranked, 2) if earlier != later]
    return sum(earlier > later for earlier, later in pairs) / len(pairs) if pairs else 0.5


def auc_gain(order: Sequence[int], gains: Sequence[float]) -> float:
    """Slate AUC minus that of the initial ranking: every place counts the same (GR2 Technical Report, arXiv 2606.31984)."""
    return auc(order, gains) - auc(range(len(order)), gains)


def log_sigmoid(gain: float, scale: float) -> float:
    """log sigmoid(gain / scale), gain = score minus that of the initial ranking (Wang et al. 2024, arXiv 2402.00742).

    Losing against the initial ranking costs nearly in proportion, winning saturates at 0: log 2 below it stands a copy.
    """
    return -math.log1p(math.exp(-abs(gain / scale))) + min(gain / scale, 0.0)


def rises(order: Sequence[int], target_rank: int, grades: Sequence[float] = ()) -> bool:
    """GR2's condition for paying the format: the target rose, or stood first before, where it cannot rise. With grades: NDCG rose, or the
    initial ranking was a best one."""
    if grades:
        gains = gains_of(len(order), target_rank, grades)
        return ndcg_gain(order, gains) > SAME or is_best(range(len(order)), target_rank, grades)
    return order.index(target_rank) < target_rank or target_rank == 0


def is_right(order: Sequence[int], target_rank: int, grades: Sequence[float] = ()) -> bool:
    """The target rose, or stands first; with grades: NDCG rose, or the order is a best one."""
    if grades:
        return ndcg_gain(order, gains_of(len(order), target_rank, grades)) > SAME or is_best(order, target_rank, grades)
    return order.index(target_rank) < target_rank or order[0] == target_rank


def is_best(order: Sequence[int], target_rank: int, grades: Sequence[float] = ()) -> bool:
    """Whether no other order is better: the target stands first, or grades fall along the order."""
    if not grades:
        return order[0] == target_rank
    return all(grades[one] >= grades[other] for one, other in pairwise(order))


def is_identity(order: Sequence[int]) -> bool:
    return list(order) == sorted(order)


def is_adjacent_swap(order: Sequence[int]) -> bool:
    """The initial ranking but for two neighbours: the least that is no copy."""
    moved = [place for place, rank in enumerate(order) if place != rank]
    return len(moved) == 2 and moved[1] == moved[0] + 1
