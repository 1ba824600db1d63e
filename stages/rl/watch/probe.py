"""Position bias as training goes on: the same slates in several orders of their candidates, and where the first choice stood."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from stages.rl.params import RlParams
from stages.rl.policy import Policy, all_sums
from stages.rl.rewards.group import GroupRewards
from stages.rl.rollouts import Group
from stages.rl.watch.asked import answered, tasks_in_orders
from stages.shared.core.launch import rank, world_size
from stages.shared.generation.base import Engine
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.slate import Slate


class PositionProbe:
    """rl.watch.probe_slates training slates, drawn by the seed, each in rl.watch.probe_orders rotations of one random order.

    So the places at which a candidate stands are spread evenly, and a policy blind to them chooses the first one shown in one of K answers.
    """

    def __init__(self, slates: Sequence[Slate], encoded: EncodedLayout, params: RlParams):
        self.params, self.reader, self.every = params, encoded.reader, params.watch.probe_steps
        rng = np.random.default_rng([params.seed, 5])
        chosen = [slates[place] for place in rng.permutation(len(slates))[: params.watch.probe_slates if self.every else 0]]
        self.size = max((len(slate.candidates) for slate in chosen), default=0)
        shown = [(slate, turned) for slate in chosen for turned in rotations(rng.permutation(len(slate.candidates)), params)]
        # All orders of a slate in one process, which compares their answers.
        own = {slate.slate for slate in chosen[rank() :: world_size()]}
        mine = [(slate, order) for slate, order in shown if slate.slate in own]
        self.asked = len(shown)
        self.tasks = tasks_in_orders([slate for slate, _ in mine], [order for _, order in mine], encoded, params)
        self.places: list[tuple[int, list[int]]] = []  # step, answers whose first choice stood at each place

    def measure(self, policy: Policy, engine: Engine, step: int) -> dict[str, float]:
        """Before the update of step `step`, from 1; {} where it is not its turn. Every process calls it."""
        if not self.every or (step - 1) % self.every:
            return {}
        with policy.sampling():
            groups = answered(self.tasks, engine, self.reader, lambda *_: GroupRewards([0.0], {}), self.params)
        firsts = [(group.task.shown.index(order[0]), len(order)) for group in groups if (order := group.answers[0].order) is not None]
        counts = np.bincount(np.array([place for place, _ in firsts], dtype=np.int64), minlength=self.size).tolist()
        relative = sum(place / (size - 1) for place, size in firsts)
        total = all_sums([*counts, relative, *agreement(groups)])
        counts, (relative, same, pairs) = total[: self.size], total[self.size :]
        valid = sum(counts)
        self.places.append((step, [round(count) for count in counts]))
        return {
            "probe_valid": valid / self.asked,
            "probe_first_shown": counts[0] / valid if valid else 0.0,
            "probe_place": relative / valid if valid else 0.5,
            "probe_first_changed": 1 - same / pairs if pairs else 0.0,
        }


def rotations(order: NDArray[np.int64], params: RlParams) -> list[list[int]]:
    """At most rl.watch.probe_orders of them, as far from each other as they can be."""
    turns = min(params.watch.probe_orders, len(order))
    return [np.roll(order, -round(turn * len(order) / turns)).tolist() for turn in range(turns)]


def agreement(groups: Sequence[Group]) -> tuple[float, float]:
    """Pairs of orders of one slate, both answered validly: those with the same first choice, and all."""
    firsts: dict[int, list[int]] = {}
    for group in groups:
        if (order := group.answers[0].order) is not None:
            firsts.setdefault(group.task.slate, []).append(order[0])
    pairs = [pair for own in firsts.values() for pair in combinations(own, 2)]
    return float(sum(one == other for one, other in pairs)), float(len(pairs))
