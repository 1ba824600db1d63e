"""DUMP (Wang et al. 2025, Automated Distribution-Level Curriculum Learning for RL-based LLM Post-training, arXiv 2504.09710).

Slates are drawn by stratum, here the place of the target in the initial ranking: stratum j with probability softmax(UCB_j / temperature),

    UCB_j = mean |A| of its last answers + sqrt(2 ln(n + 1) / (n_j + 1)),

n_j of n slates drawn so far being of it. Where advantages are large there is something to learn; a group of tied rewards has none.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.rl.objectives.parts import EPSILON
from stages.rl.params import RlParams
from stages.rl.rollouts import Group, Task
from stages.rl.stream import TaskStream
from stages.shared.core.errors import StageError
from stages.shared.core.launch import rank


def mean_advantage(rewards: Sequence[float]) -> float:
    """Mean of |R - mean| / std of a group."""
    values = np.asarray(rewards, dtype=np.float64)
    return float(np.abs(values - values.mean()).mean() / (values.std(ddof=1) + EPSILON))


def probabilities(advantages: Sequence[float], drawn: Sequence[int], temperature: float) -> NDArray[np.float64]:
    """Of each stratum [J]. advantages: mean |A| of each; drawn: n_j."""
    bonus = [math.sqrt(2 * math.log(sum(drawn) + 1) / (count + 1)) for count in drawn]
    scores_J = (np.asarray(advantages) + np.asarray(bonus)) / temperature
    weights_J = np.exp(scores_J - scores_J.max())
    return np.asarray(weights_J / weights_J.sum(), dtype=np.float64)


class Curriculum:
    """An endless stream of tasks; within a stratum epoch after epoch. Each process learns of its own answers."""

    def __init__(self, tasks: Sequence[Task], params: RlParams):
        places = sorted({task.target_rank for task in tasks})
        if len(places) < 2:
            raise StageError(
                f"rl.allocation.dump: all {len(tasks)} training slates have their target at place {places[0] + 1} of the initial ranking, "
                "so there is nothing to choose between; set it to false"
            )
        self.streams = {
            place: TaskStream([task for task in tasks if task.target_rank == place], [params.seed, 2, place]) for place in places
        }
        self.advantages = {place: deque[float](maxlen=params.allocation.dump_window) for place in places}
        self.rng = np.random.default_rng([params.seed, 3, rank()])
        self.temperature = params.allocation.dump_temperature

    def __iter__(self) -> "Curriculum":
        return self

    def __next__(self) -> Task:
        means = [float(np.mean(window)) if window else 0.0 for window in self.advantages.values()]
        chances_J = probabilities(means, [stream.drawn for stream in self.streams.values()], self.temperature)
        place = list(self.streams)[int(self.rng.choice(len(chances_J), p=chances_J))]
        return next(self.streams[place])

    def see(self, groups: Sequence[Group]) -> None:
        for group in groups:
            self.advantages[group.task.target_rank].append(mean_advantage(group.rewards))

    def state(self) -> Any:
        drawn = {place: stream.drawn for place, stream in self.streams.items()}
        return drawn, {place: list(window) for place, window in self.advantages.items()}, self.rng.bit_generator.state

    def load_state(self, state: Any) -> None:
        drawn: Mapping[int, int]
        drawn, advantages, self.rng.bit_generator.state = state
        for place, stream in self.streams.items():
            stream.skip(drawn[place])
            self.advantages[place].extend(advantages[place])
