"""What is known of a right trace, as lessons, under rl.credit: relevance: all but its relevances, which alone are a matter of reward.

A trace quotes of each candidate what the prompt says (rl.quoting_nll), and the answer sorts the relevances that the policy wrote itself
(rl.sorting_nll). With nu one of these two, each token of the quotes, or of the answer up to the first wrong one, and that one, too, adds

    -nu log sum of pi(t) over the tokens t that are right there

which is DAgger (Ross et al. 2011, arXiv 1011.0686): the states are the policy's own, the lesson is an expert's, here an exact one. A
reward says the same with the noise of a draw, and only where an answer went wrong; steps that move relevances then break the quotes and the
sorting that they should leave alone (docs/reinforcement-learning.md#what-breaks-a-policy-that-sorts). Where a relevance comes, any is
right, and of candidates with one relevance none is preferred. The sum is over all tokens of the step, as in DAPO.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from stages.rl.credit import Credit, Lesson, right_trace
from stages.rl.params import RlParams
from stages.rl.rollouts import Task


def lesson_tokens(task: Task, params: RlParams) -> set[int]:
    """All tokens that a lesson may call right."""
    tokens: set[int] = set()
    if params.sorting_nll:
        tokens |= {token for name in task.constraint.names for token in name} | {task.constraint.layout.end}
    if params.quoting_nll:
        tokens |= {token for nexts in right_trace(task) for token in nexts}
    return tokens


def lessons_loss(beside_BTL: Tensor, vocabulary: Sequence[int], credits: Sequence[Credit], params: RlParams) -> Tensor:
    """Of quotes and answers, weighted. beside_BTL: log-probabilities of the L tokens of `vocabulary`, at all tokens of B answers."""
    quoting = lesson_loss(beside_BTL, vocabulary, [credit.quotes for credit in credits])
    sorting = lesson_loss(beside_BTL, vocabulary, [credit.answer for credit in credits])
    # Without a lesson each is a plain zero, also where the constraint closes tokens: their log-probability is -inf.
    return params.quoting_nll * quoting + params.sorting_nll * sorting


def lesson_loss(beside_BTL: Tensor, vocabulary: Sequence[int], lessons_B: Sequence[Sequence[Lesson]]) -> Tensor:
    """-sum over the lessons of all answers of log pi(right ones), but for those all of whose right tokens the constraint closes."""
    lessons = [(row, place, nexts) for row, own in enumerate(lessons_B) for place, nexts in own]
    if not lessons:
        return beside_BTL[..., :0].sum()
    column = {token: number for number, token in enumerate(vocabulary)}
    is_right_NL = torch.zeros(len(lessons), len(vocabulary), dtype=torch.bool)
    for number, (_, _, nexts) in enumerate(lessons):
        is_right_NL[number, [column[token] for token in nexts]] = True
    row_N, place_N = (torch.tensor(values, device=beside_BTL.device) for values in list(zip(*lessons, strict=True))[:2])
    logp_NL = beside_BTL[row_N, place_N].masked_fill(~is_right_NL.to(beside_BTL.device), -torch.inf)
    is_open_N = (logp_NL > -torch.inf).any(-1)
    return -logp_NL[is_open_N].logsumexp(-1).sum()
