"""The order in which slates are answered."""

from collections.abc import Sequence
from itertools import count, islice

import numpy as np

from stages.rl.rollouts import Task
from stages.shared.core.launch import rank, world_size


class TaskStream:
    """Epoch after epoch in random order; of the one stream each rank takes every world_size-th. drawn: how many this rank has taken."""

    def __init__(self, tasks: Sequence[Task], seed: int | Sequence[int]):
        rng = np.random.default_rng(seed)
        indices = (index for _ in count() for index in rng.permutation(len(tasks)))
        self.tasks, self.indices, self.drawn = tasks, islice(indices, rank(), None, world_size()), 0

    def __iter__(self) -> "TaskStream":
        return self

    def __next__(self) -> Task:
        self.drawn += 1
        return self.tasks[next(self.indices)]

    def skip(self, drawn: int) -> None:
        """To where a saved run was."""
        for _ in range(drawn):
            next(self)
