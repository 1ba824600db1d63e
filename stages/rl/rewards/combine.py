"""How the parts of a reward become one number.

conditional (GR2, arXiv 2602.07774): R_rank + alpha if the target rose or stood first already, else R_rank.
strict: R_rank + alpha if the target rose, or stood first and still does. GR2 pays alpha wherever the target stood first, also when it fell,
and the other slates for every rise: so giving away what stands first is cheap.
gated (GR2 Technical Report, arXiv 2606.31984): the format opens the gate to R_rank + alpha; a copy of an initial ranking that was not the
best earns alpha only.
sum: every part is paid; the ablation, under which copying the initial ranking is paid alpha for nothing. `ungated` is its older name.
An answer that is no permutation earns `invalid`, and under `sum` its grounding.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from stages.rl.rewards.orders import is_best, is_identity, is_right, rises
from stages.shared.slates.answers import Answer


class Earned(NamedTuple):
    """What one answer earned before parts are put together. rank: `invalid` where there is no order. extra: weighted, e.g. grounding.

    grades: as of orders.py.
    """

    answer: Answer
    target_rank: int
    rank: float
    extra: float = 0.0
    grades: Sequence[float] = ()


def conditional(earned: Earned, alpha: float) -> float:
    order = earned.answer.order
    # Without the condition, copying the initial ranking would be paid alpha for nothing.
    return earned.rank + alpha + earned.extra if order is not None and rises(order, earned.target_rank, earned.grades) else earned.rank


def strict(earned: Earned, alpha: float) -> float:
    order = earned.answer.order
    return earned.rank + alpha + earned.extra if order is not None and is_right(order, earned.target_rank, earned.grades) else earned.rank


def gated(earned: Earned, alpha: float) -> float:
    order = earned.answer.order
    if order is None:
        return earned.rank
    if is_identity(order) and not is_best(order, earned.target_rank, earned.grades):
        return alpha
    return earned.rank + alpha + earned.extra


def summed(earned: Earned, alpha: float) -> float:
    return earned.rank + alpha * earned.answer.valid + earned.extra


COMBINATIONS: Mapping[str, Callable[[Earned, float], float]] = {
    "conditional": conditional,
    "strict": strict,
    "gated": gated,
    "sum": summed,
    "ungated": summed,
    "gdpo": summed,  # shown in the curve; what is learnt from are the parts
}
