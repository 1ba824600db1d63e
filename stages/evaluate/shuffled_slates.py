"""The same candidates in shuffled orders, features and all: what a model is asked so that its position bias can be measured.

The retriever's score is a feature of the candidate (`sc`) and moves with it: a model may use it without being biased.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stages.shared.core.errors import StageError
from stages.shared.slates.reranking.padding import padded_orders
from stages.shared.slates.slate import Slate

Ints = NDArray[np.int_]


def shuffles(slates: Sequence[Slate], seed: int, repeat: int = 0) -> Ints:
    """[n, K]: an order for each slate, never the initial ranking; it depends on the seed, the slate's id and `repeat` alone. Padded.

    What else is laid out by candidate goes along by np.take_along_axis(values_NKF, orders[..., None], axis=1).
    """
    orders = []
    for slate in slates:
        if len(slate.candidates) < 2:
            raise StageError(f"slate {slate.slate}: one candidate cannot be shuffled; raise retrieve.candidates to two or more")
        rng = np.random.default_rng([seed, slate.slate, repeat])
        order = rng.permutation(len(slate.candidates))
        while (order == np.arange(len(order))).all():
            order = rng.permutation(len(order))
        orders.append(order.tolist())
    return padded_orders(orders)
