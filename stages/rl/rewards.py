"""Conditional verifiable reward of GR2 (arXiv 2602.07774): R_rank = (rank_pre(x*) - rank_re(x*)) / K, format paid only on merit."""

from stages.shared.slates.answers import Answer


def rank_reward(answer: Answer, target_rank: int, candidates: int) -> float:
    """R_rank in [-1, 1]; ranks count from 0. Only for valid answers."""
    assert answer.order is not None
    return (target_rank - answer.order.index(target_rank)) / candidates


def conditional_reward(answer: Answer, target_rank: int, candidates: int, alpha: float, invalid: float) -> float:
    """R_rank + alpha if the target rose or stood first already, else R_rank; `invalid` for what is no permutation of the slate.

    Without the condition, copying the initial ranking would be paid alpha for nothing.
    """
    if not answer.valid:
        return invalid
    gain = rank_reward(answer, target_rank, candidates)
    # A target that stood first cannot rise: keeping it there is all that merit can be.
    return gain + alpha if gain > 0 or target_rank == 0 else gain


def ungated_reward(answer: Answer, target_rank: int, candidates: int, alpha: float, invalid: float) -> float:
    """The ablation: the format is paid always."""
    return rank_reward(answer, target_rank, candidates) + alpha if answer.valid else invalid
