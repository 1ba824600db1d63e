"""Knapsack RL (Li et al. 2025, Unlocking Exploration of LLMs via Optimizing Budget Allocation, arXiv 2509.25849).

N answers to a slate that is answered right with probability p are worth

    V(N, p) = (1 - p^N - (1 - p)^N) p (1 - p)^2,

the chance that they teach (not all right, not all wrong) times the gain in p to be had. A round's answers go where they are worth most.
p is estimated from the slate's last visit, and from all slates whose target stood at the same place before any visit.
"""

import heapq
from collections.abc import Sequence
from typing import Any

PRIOR = 4.0  # answers that the rate of a slate's like counts as, beside its own


def value(answers: int, rate: float) -> float:
    return float((1 - rate**answers - (1 - rate) ** answers) * rate * (1 - rate) ** 2)


def budgets(rates: Sequence[float], total: int, least: int, most: int) -> list[int]:
    """Answers to each slate: `total` in all, of the greatest value, between least and most each.

    V is concave in N (each answer adds less than the one before it), so to give one at a time where it adds most is the best there is.
    Equals go to the slate with fewest, then the first.
    """
    counts = [least] * len(rates)

    def entry(place: int) -> tuple[float, int, int]:
        gain = value(counts[place] + 1, rates[place]) - value(counts[place], rates[place])
        return -gain, counts[place], place

    heap = [entry(place) for place in range(len(rates))]
    heapq.heapify(heap)
    for _ in range(total - least * len(rates)):
        _, _, place = heapq.heappop(heap)
        counts[place] += 1
        if counts[place] < most:
            heapq.heappush(heap, entry(place))
    return counts


class SuccessRates:
    """How often slates were answered right: by slate (its last visit) and by place of the target in the initial ranking (all visits)."""

    def __init__(self) -> None:
        self.of_slate: dict[int, tuple[int, int]] = {}  # right, answers
        self.of_place: dict[int, tuple[int, int]] = {}

    def see(self, slate: int, place: int, right: int, answers: int) -> None:
        before = self.of_place.get(place, (0, 0))
        self.of_slate[slate] = right, answers
        self.of_place[place] = before[0] + right, before[1] + answers

    def rate(self, slate: int, place: int) -> float:
        """In (0, 1): a rate of 0 or 1 after a few answers is luck, and would give the slate no budget ever again."""
        right, answers = self.of_place.get(place, (0, 0))
        alike = (right + 1) / (answers + 2)
        own_right, own_answers = self.of_slate.get(slate, (0, 0))
        return (own_right + PRIOR * alike) / (own_answers + PRIOR)

    def state(self) -> Any:
        return dict(self.of_slate), dict(self.of_place)

    def load_state(self, state: Any) -> None:
        self.of_slate, self.of_place = (dict(table) for table in state)
