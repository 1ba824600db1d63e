"""What a run has learnt of its slates, by which its next rollouts are spent; it goes on where a saved run was."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.rl.allocation.dump import Curriculum
from stages.rl.allocation.knapsack import SuccessRates
from stages.rl.allocation.relift import Demonstration, FailedSlates, sft_step
from stages.rl.params import RlParams
from stages.rl.policy import Policy
from stages.rl.rollouts import Group, Rollouts, Task
from stages.rl.stream import TaskStream


class Allocation:
    """stream: the slates to come. rates: under Knapsack, else None."""

    def __init__(self, tasks: Sequence[Task], params: RlParams, traces: Mapping[int, Demonstration]):
        options = params.allocation
        self.params = params
        self.curriculum = Curriculum(tasks, params) if options.dump else None
        self.plain = TaskStream(tasks, params.seed)
        self.stream = self.curriculum or self.plain
        self.rates = SuccessRates() if options.knapsack_most else None
        self.failed = FailedSlates(traces) if options.relift_batch else None

    def see(self, groups: Sequence[Group]) -> None:
        """What the answers of a step say of slates. With the drawing of the next step, not with the update: they may overlap."""
        if self.curriculum:
            self.curriculum.see(groups)
        if self.rates:
            for group in groups:
                self.rates.see(group.task.slate, group.task.target_rank, sum(group.rights()), len(group.rewards))

    def learn(self, policy: Policy, rollouts: Rollouts, pad_id: int) -> dict[str, float]:
        """After a step's update: ReLIFT's. Returns columns of the curve, of what is on alone."""
        groups, measured = rollouts.sampled, dict[str, float]()
        if self.params.allocation.prof_share < 1:
            measured["prof_dropped"] = rollouts.dropped / sum(len(group.rewards) for group in groups)
        if self.rates:
            measured["budget_most"] = float(max(len(group.rewards) for group in groups))
        if self.curriculum:
            measured["target_place"] = float(np.mean([group.task.target_rank + 1 for group in groups]))
        if self.failed:
            self.failed.see(groups)
            measured |= sft_step(policy, self.failed.take(self.params.allocation.relift_batch), self.params, pad_id)
        return measured

    def state(self) -> Any:
        parts = {"curriculum": self.curriculum, "rates": self.rates, "failed": self.failed}
        return {"drawn": self.plain.drawn, **{name: part.state() for name, part in parts.items() if part}}

    def load_state(self, state: Any) -> None:
        self.plain.skip(state["drawn"])
        for name, part in {"curriculum": self.curriculum, "rates": self.rates, "failed": self.failed}.items():
            if part:
                part.load_state(state[name])
