"""What only the synthetic world lets one say: the probability of every candidate to be taken next."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.shared.core.outputs import DATA
from stages.shared.evaluation.test_set import TestSet
from stages.shared.synthetic.world import World, whole_histories


@dataclass(frozen=True)
class GroundTruth:
    """Of each candidate [n, K], from the user's whole history: log-probability to be taken next, and the chance to be the target."""

    log_probabilities_NK: NDArray[np.float64]
    chances_NK: NDArray[np.float64]


def load_ground_truth(test_set: TestSet) -> GroundTruth | None:
    """None where the data is not of the synthetic world."""
    world = World.load(DATA / "ingest/world.safetensors")
    if not world:
        return None
    histories = whole_histories(test_set.interactions, test_set.users, test_set.positions)
    return GroundTruth(
        world.log_probabilities(histories, test_set.candidates_NK),
        world.chances(histories, test_set.candidates_NK),
    )
