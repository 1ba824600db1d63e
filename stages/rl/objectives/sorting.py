"""The answer as a lesson, under rl.credit: relevance: after every relevance that the policy wrote itself, what comes next is known.

With nu = rl.sorting_nll, each token of an answer up to the first wrong one, and that one, too, adds

    -nu log sum of pi(t) over the tokens t that keep to the relevances

which is DAgger (Ross et al. 2011, arXiv 1011.0686): the states are the policy's own, the lesson is an expert's, here an exact one, since an
answer sorts what stands before it. A reward says the same with the noise of a draw, and only where an answer went wrong; steps that move
relevances then break the sorting that it should hold (docs/reinforcement-learning.md#what-breaks-a-policy-that-sorts). Of candidates with
one relevance none is preferred. The sum is over all tokens of the step, as in DAPO.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from stages.rl.credit import Credit
from stages.rl.rollouts import Task


def answer_tokens(task: Task) -> tuple[int, ...]:
    """All tokens that an answer may consist of."""
    constraint = task.constraint
    return tuple(sorted({token for name in constraint.names for token in name} | {constraint.layout.end}))


def sorting_loss(beside_BTL: Tensor, vocabulary: Sequence[int], rows: Sequence[Credit]) -> Tensor:
    """-sum over tokens of log pi(right ones). beside_BTL: log-probabilities of the L tokens of `vocabulary`, at all tokens of B answers."""
    lessons = [(row, place, nexts) for row, credit in enumerate(rows) for place, nexts in credit.nexts]
    if not lessons:
        return beside_BTL.sum() * 0.0
    column = {token: number for number, token in enumerate(vocabulary)}
    is_right_NL = torch.zeros(len(lessons), len(vocabulary), dtype=torch.bool)
    for number, (_, _, nexts) in enumerate(lessons):
        is_right_NL[number, [column[token] for token in nexts]] = True
    row_N, place_N = (torch.tensor(values, device=beside_BTL.device) for values in list(zip(*lessons, strict=True))[:2])
    logp_NL = beside_BTL[row_N, place_N].masked_fill(~is_right_NL.to(beside_BTL.device), -torch.inf)
    return -logp_NL.logsumexp(-1).sum()
