"""Rollouts of one step: sample, score, drop groups without reward variance, refill up to a cap (DAPO's dynamic sampling)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from stages.rl.dapo import has_reward_variance
from stages.shared.generation.base import Completion, Engine, Sampling
from stages.shared.slates.answers import Answer, Reader
from stages.shared.slates.constraint import PermutationConstraint

Reward = Callable[[Answer, int, int], float]
CONTRADICTS = Answer(None, "contradicts")


@dataclass(frozen=True)
class Task:
    """One training slate as token ids. target_rank: in the initial ranking; shown: the initial ranks in the order of the prompt."""

    prompt: list[int]
    constraint: PermutationConstraint
    target_rank: int
    shown: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """G rollouts of one task. answers: in initial ranks."""

    task: Task
    completions: list[Completion]
    answers: list[Answer]
    rewards: list[float]


@dataclass(frozen=True)
class Rollouts:
    """kept: groups with reward variance. seen: every group sampled. refills: extra rounds it took."""

    kept: list[Group]
    sampled: list[Group]
    refills: int


def sample_step(
    tasks: Iterator[Task],
    engine: Engine,
    reader: Reader,
    reward: Reward,
    sampling: Sampling,
    prompts: int,
    refills: int,
    tolerance: float,
    consistent: bool = False,
) -> Rollouts:
    """At most `prompts` groups with reward variance, from at most 1 + refills rounds of `prompts` tasks.

    consistent: an answer that goes against the relevances of its own trace is a fault, `contradicts`.
    """
    kept: list[Group] = []
    sampled: list[Group] = []
    for round_number in range(refills + 1):
        batch = [next(tasks) for _ in range(prompts)]
        # A seed for each round: with the same seed, a task that comes round again would draw the same completions.
        options = Sampling(**{**sampling.__dict__, "seed": sampling.seed * (refills + 1) + round_number})
        constraints = [task.constraint for task in batch]
        groups = score(batch, engine.generate([task.prompt for task in batch], options, constraints), reader, reward, consistent)
        sampled += groups
        varied = has_reward_variance(torch.tensor([group.rewards for group in groups]), tolerance)
        kept += [group for group, is_varied in zip(groups, varied.tolist(), strict=True) if is_varied]
        if len(kept) >= prompts:
            break
    # Cut to `prompts`: every step and rank learns from groups of the same number, as far as there are enough.
    return Rollouts(kept[:prompts], sampled, round_number)


def score(
    tasks: Sequence[Task], completions: Sequence[Sequence[Completion]], reader: Reader, reward: Reward, consistent: bool = False
) -> list[Group]:
    groups = []
    for task, samples in zip(tasks, completions, strict=True):
        names, reasoning, levels = task.constraint.names, task.constraint.reasoning, task.constraint.layout.relevances
        read = [reader.read(completion.token_ids, names, reasoning) for completion in samples]
        if consistent:
            read = [
                CONTRADICTS if contradicts(answer, completion.token_ids, levels) else answer
                for answer, completion in zip(read, samples, strict=True)
            ]
        answers = [initial_ranks(answer, task) for answer in read]
        rewards = [reward(answer, task.target_rank, len(task.shown)) for answer in answers]
        groups.append(Group(task, list(samples), answers, rewards))
    return groups


def contradicts(answer: Answer, completion: Sequence[int], levels: Sequence[int]) -> bool:
    """Whether a candidate stands before one that the trace finds more relevant. levels: the token ids of the relevances, lowest first.

    False where the trace does not give one relevance for each candidate: then there is nothing to hold the answer against.
    """
    level_of = {token: level for level, token in enumerate(levels)}
    relevances = [level_of[token] for token in completion if token in level_of]
    if answer.order is None or len(relevances) != len(answer.order):
        return False
    in_answer = [relevances[rank] for rank in answer.order]
    return any(earlier < later for earlier, later in pairwise(in_answer))


def initial_ranks(answer: Answer, task: Task) -> Answer:
    """The answer to the slate as shown, in ranks of the initial ranking: what the reward counts from."""
    return replace(answer, order=tuple(task.shown[rank] for rank in answer.order)) if answer.order is not None else answer
