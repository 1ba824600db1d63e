"""Credit for every relevance of a trace, in place of one advantage for all tokens of an answer (rl.credit: relevance).

A trace gives each candidate a relevance and the answer sorts them, so the reward is a known function of the relevances: what any other
level of one candidate would have earned can be computed, without an answer in which it was drawn. With L the levels that an answer gave, R
the reward of the order that they sort to (ties as shown) and pi_i the policy's distribution over levels where it wrote that of candidate i,

    Q_i(l) = R(L with l in place of i's),   J_i = sum_l pi_i(l) Q_i(l),   A_i(l) = (Q_i(l) - J_i) / std of the step's rewards

and the loss -sum_l pi_i(l) A_i(l), pi_i under gradient alone, takes the place of the token that was drawn: the gradient over all actions
(Allen et al. 2017, Mean Actor-Critic, arXiv 1709.00503, eq. 4) of a counterfactual advantage (Foerster et al. 2018, COMA, arXiv 1705.08926,
eq. 4), with candidates for agents and a Q that is exact. The luck of this draw is gone, that of the nine other levels is not.

As the order follows from the relevances, the tokens behind the think block only decide whether the answer is valid: times
rl.validity_weight, their advantage is that of rewards in which every valid answer has the mean of the valid ones. Of an invalid answer
the first wrong token alone is blamed, as it is known which one that is: blame for all would unlearn the right ones before it. The weight is
0 by default: what a policy already does in 97 of 100 answers has a gradient of little but noise, ten times as long as that of the
relevances, and steps that move these then break the rest (docs/reinforcement-learning.md). The other tokens of the block (quotes) have no
advantage: a hundred of them would drown ten relevances in noise. Where the block does not end, all its tokens have that of an invalid
answer. With rl.sorting_nll the answer, with rl.quoting_nll the quotes are taught in place of being rewarded (objectives/lessons.py).

The advantage of validity is divided by the std of the step's rewards, too: that of the group would give most weight to slates whose order
hardly varies, and so to targets that the evidence speaks against.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.rl.objectives.parts import EPSILON
from stages.rl.params import RlParams
from stages.rl.rewards.group import reward_of_order
from stages.rl.rollouts import Group, Task, relevances_along

Floats = NDArray[np.float64]
Lesson = tuple[int, list[int]]


class Credit(NamedTuple):
    """Of one answer of T tokens.

    others_T: advantage of each token, 0 within a think block that ends. places: of its K relevances, none where it has no order. worth_KL:
    Q of each level there, over the std of the step's rewards. answer, quotes: of right_nexts under rl.sorting_nll, and of right_quotes
    under rl.quoting_nll: a place, and the tokens that are right there.
    """

    others_T: Tensor
    places: list[int]
    worth_KL: Tensor
    answer: list[Lesson]
    quotes: list[Lesson]


def credits_of(group: Group, params: RlParams, batch_std: float) -> list[Credit]:
    """Of each answer of the group. batch_std: of all rewards of the step."""
    # Where all answers of the step earn the same there is no such scale; what was not drawn counts in the reward's own unit.
    scale = batch_std + EPSILON if batch_std > params.variance_tolerance else 1.0
    rewards_G = torch.tensor(format_rewards(group))
    found = []
    for advantage, answer, completion in zip((rewards_G - rewards_G.mean()) / scale, group.answers, group.completions, strict=True):
        found_levels = judged(group.task, completion.token_ids)
        levels = found_levels if answer.valid else {}
        others_T = params.validity_weight * advantage.repeat(len(completion.token_ids))
        thought = end_of_thought(group.task, completion.token_ids)
        others_T[:thought] = 0.0
        if not answer.valid and thought and (wrong := first_wrong(group.task, completion.token_ids)) is not None:
            others_T[thought:wrong] = 0.0
            others_T[wrong + 1 :] = 0.0
        worth_KL = worth_of_levels(np.array([*levels.values()], dtype=np.int64), group.task, params) / scale
        left_out = params.overlong == "filter" and answer.fault == "unfinished"
        sorts = params.sorting_nll and found_levels and thought and not left_out
        sorting = right_nexts(group.task, completion.token_ids) if sorts else []
        quoting = right_quotes(group.task, completion.token_ids) if params.quoting_nll and not left_out else []
        found.append(Credit(others_T, [*levels], torch.from_numpy(worth_KL).float(), sorting, quoting))
    return found


def relevance_loss(beside_BTL: Tensor, rows: Sequence[Credit]) -> Tensor:
    """-sum over relevances and levels of pi(l) A(l). beside_BTL: log-probabilities of the levels, at all tokens of B answers."""
    counted = [(row, place) for row, credit in enumerate(rows) for place in credit.places]
    if not counted:
        return beside_BTL[..., :0].sum()  # a closed token's is -inf, and no zero times it is zero
    row_N, place_N = (torch.tensor(column, device=beside_BTL.device) for column in zip(*counted, strict=True))
    chances_NL = beside_BTL[row_N, place_N].exp()
    worth_NL = torch.cat([credit.worth_KL for credit in rows if credit.places]).to(chances_NL)
    # Tokens that are no relevance have a share of the distribution: worth what the levels are on average, so nothing is learnt of them.
    shares_NL = chances_NL.detach() / chances_NL.detach().sum(-1, keepdim=True).clamp_min(1e-12)
    advantage_NL = worth_NL - (shares_NL * worth_NL).sum(-1, keepdim=True)
    return -(chances_NL * advantage_NL).sum()


def worth_of_levels(levels_K: NDArray[np.int64], task: Task, params: RlParams) -> Floats:
    """Q_i(l): [K, L]. levels_K: of the candidates in the order shown."""
    count = len(task.constraint.layout.relevances)
    worth_KL = np.zeros((len(levels_K), count))
    earned: dict[tuple[int, ...], float] = {}
    for candidate in range(len(levels_K)):
        changed_LK = np.tile(levels_K, (count, 1))
        changed_LK[:, candidate] = np.arange(count)
        for level, places in enumerate(np.argsort(-changed_LK, axis=1, kind="stable").tolist()):
            order = tuple(task.shown[place] for place in places)
            if order not in earned:
                earned[order] = reward_of_order(order, task.target_rank, params, task.grades)
            worth_KL[candidate, level] = earned[order]
    return worth_KL


def end_of_thought(task: Task, token_ids: Sequence[int]) -> int:
    """How many tokens there are before the answer; 0 where there is none."""
    think_end = task.constraint.layout.think_end
    return token_ids.index(think_end) + 1 if think_end in token_ids else 0


def right_trace(task: Task) -> list[list[int]]:
    """Of each place of the think block, with its end: the tokens that are right there.

    A trace quotes of one candidate after the other what the prompt says, and judges it: any relevance is right. Empty where the layout's
    traces are no such list.
    """
    constraint, layout = task.constraint, task.constraint.layout
    if not constraint.quotes:
        return []
    script = [[token] for token in constraint.opening]
    for quote in constraint.quotes:
        script += [*([token] for token in quote), layout.relevances]
    return [*script, [layout.think_end]]


def right_quotes(task: Task, token_ids: Sequence[int]) -> list[Lesson]:
    """Of each token of the think block: its place, and the tokens that are right there.

    In a block of the right length a wrong token is a wrong value, behind which the next ones are known as before. Were they left out,
    late quotes of a policy that misquotes early ones would not be held. In any other block, up to the first wrong token and with it.
    """
    script = right_trace(task)
    in_step = end_of_thought(task, token_ids) == len(script)
    found = []
    for place, (token, nexts) in enumerate(zip(token_ids, script, strict=False)):
        found.append((place, nexts))
        if token not in nexts and not in_step:
            break
    return found


def right_nexts(task: Task, token_ids: Sequence[int]) -> list[Lesson]:
    """Of each token of the answer, up to the first wrong one and with it: its place, and the tokens that keep to the relevances there.

    Candidates of one relevance may come in any order, as may all where the trace has not one relevance a candidate.
    """
    names = task.constraint.names
    left = dict(enumerate(list(judged(task, token_ids).values()) or [0] * len(names)))
    said: list[int] = []
    found = []
    for place in range(end_of_thought(task, token_ids), len(token_ids)):
        highest = max(left.values(), default=0)
        rightly = [one for one, level in left.items() if level == highest and list(names[one][: len(said)]) == said]
        nexts = sorted({names[one][len(said)] for one in rightly}) if left else [task.constraint.layout.end]
        found.append((place, nexts))
        if token_ids[place] not in nexts or not left:
            break
        said = [*said, token_ids[place]]
        whole = next((one for one in rightly if list(names[one]) == said), None)
        if whole is not None:
            del left[whole]
            said = []
    return found


def first_wrong(task: Task, token_ids: Sequence[int]) -> int | None:
    """Place of the first token of the answer behind which none is left that keeps to the relevances; None where the answer is cut off."""
    nexts = right_nexts(task, token_ids)
    return nexts[-1][0] if nexts and token_ids[nexts[-1][0]] not in nexts[-1][1] else None


def judged(task: Task, token_ids: Sequence[int]) -> dict[int, int]:
    """Place of each relevance -> its level, one a candidate in the order shown; empty where there are more or fewer, or others' letters."""
    found = relevances_along(token_ids, task.constraint.layout)
    if [one.candidate for one in found] != [*range(len(task.shown))]:
        return {}
    return {one.place: one.level for one in found}


def format_rewards(group: Group) -> list[float]:
    """The group's rewards, those of valid answers replaced by their mean."""
    valid = [reward for reward, answer in zip(group.rewards, group.answers, strict=True) if answer.valid]
    mean = float(np.mean(valid)) if valid else 0.0
    return [mean if answer.valid else reward for reward, answer in zip(group.rewards, group.answers, strict=True)]
