"""Credit for each relevance of a trace, in place of one advantage for all tokens of an answer (rl.credit: candidate).

A trace gives every candidate a relevance, and the answer sorts them, so the reward is a known function of the relevances: what another
relevance of one candidate had earned can be computed, without an answer that was written with it. With L_h the relevances of answer h and
R the reward of the order that they sort to (ties as shown), relevance l of candidate i is worth, averaged over the G answers of the slate,

    Q_i(l) = 1/G sum_h R(L_h with l in place of i's),   A_gi = (Q_i(L_gi) - 1/G sum_k Q_i(L_ki)) / std of the group's rewards

the counterfactual advantage of COMA (Foerster et al. 2018, arXiv 1705.08926, eq. 4) with candidates for agents, its expectations taken over
the group's own samples. The luck of the nine other relevances is averaged out, where the advantage of GRPO leaves all of it in.

All other tokens (quotes, letters, the answer) decide whether an answer is valid, as its order follows from the relevances: their advantage
is that of rewards in which every valid answer has the mean of the valid ones.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from stages.rl.objectives.parts import EPSILON
from stages.rl.params import RlParams
from stages.rl.rewards.combine import COMBINATIONS, Earned
from stages.rl.rewards.group import rank_reward
from stages.rl.rollouts import Group, Task
from stages.shared.slates.answers import Answer

Advantages = Callable[[Tensor, float], Tensor]


def token_advantages(group: Group, params: RlParams, advantages: Advantages, batch_std: float) -> list[Tensor]:
    """Of each answer's tokens [T]. advantages: the objective's, of rewards [1, G]; batch_std: of all rewards of the step."""
    others_G = advantages(torch.tensor([format_rewards(group)]), batch_std)[0]
    rows = [torch.full((len(one.token_ids),), float(value)) for one, value in zip(group.completions, others_G, strict=True)]
    places = [relevance_places(group.task, one.token_ids) for one in group.completions]
    counted = [row for row, found in enumerate(places) if found and group.answers[row].valid]
    if len(counted) < 2:
        return rows
    level_of = {token: level for level, token in enumerate(group.task.constraint.layout.relevances)}
    levels_GK = np.array([[level_of[group.completions[row].token_ids[place]] for place in places[row]] for row in counted])
    credit_GK = torch.from_numpy(relevance_credit(levels_GK, lambda levels: reward_of(levels, group.task, params))).float()
    # As the objective scales rewards: its advantages of the group over the plain differences.
    scale = torch.tensor(group.rewards).std() + EPSILON
    if params.objective == "dr_grpo":
        scale = torch.ones(())
    elif params.objective == "lite_ppo":
        scale = torch.tensor(batch_std + EPSILON)
    for number, row in enumerate(counted):
        rows[row][places[row]] = credit_GK[number] / scale
    return rows


def relevance_credit(levels_GK: np.ndarray, reward: Callable[[np.ndarray], float]) -> np.ndarray:
    """Q_i(L_gi) - mean over k of Q_i(L_ki): [G, K], of K candidates in the order shown. It sums to 0 over the answers."""
    count, candidates = levels_GK.shape
    credit_GK = np.zeros((count, candidates))
    for candidate in range(candidates):
        worth = {}
        for level in set(levels_GK[:, candidate].tolist()):
            changed_GK = levels_GK.copy()
            changed_GK[:, candidate] = level
            worth[level] = float(np.mean([reward(levels) for levels in changed_GK]))
        credit_GK[:, candidate] = [worth[level] for level in levels_GK[:, candidate].tolist()]
    return credit_GK - credit_GK.mean(axis=0)


def reward_of(levels: np.ndarray, task: Task, params: RlParams) -> float:
    """What a valid answer that sorts these relevances earns. levels: of the candidates in the order shown."""
    order = tuple(task.shown[place] for place in np.argsort(-levels, kind="stable"))
    earned = Earned(Answer(order, ""), task.target_rank, rank_reward(order, task.target_rank, params, task.grades), 0.0, task.grades)
    return COMBINATIONS[params.reward](earned, params.alpha)


def relevance_places(task: Task, token_ids: Sequence[int]) -> list[int]:
    """Where the relevances stand, one a candidate in the order shown; empty where there are more or fewer."""
    relevances = set(task.constraint.layout.relevances)
    found = [place for place, token in enumerate(token_ids) if token in relevances]
    return found if len(found) == len(task.shown) else []


def format_rewards(group: Group) -> list[float]:
    """The group's rewards with those of valid answers replaced by their mean."""
    valid = [reward for reward, answer in zip(group.rewards, group.answers, strict=True) if answer.valid]
    mean = float(np.mean(valid)) if valid else 0.0
    return [mean if answer.valid else reward for reward, answer in zip(group.rewards, group.answers, strict=True)]
