"""Rollouts of one step: sample, score, drop groups without reward variance, refill up to a cap (DAPO's dynamic sampling).

A group is the answers to one slate. Slates are never told apart by the text of their prompts: two with one text have two targets.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

import torch

from stages.rl.allocation.knapsack import SuccessRates, budgets
from stages.rl.allocation.prof import consistent
from stages.rl.objectives.advantages import has_reward_variance
from stages.rl.params import RlParams
from stages.rl.policy import all_sum
from stages.rl.rewards.group import RewardFunction
from stages.rl.rewards.orders import is_right
from stages.rl.rewards.tokens import grounding
from stages.shared.generation.base import Completion, Engine, Sampling
from stages.shared.slates.answers import Answer, Reader
from stages.shared.slates.constraint import LayoutTokenIds, PermutationConstraint

CONTRADICTS = Answer(None, "contradicts")


@dataclass(frozen=True)
class Task:
    """One training slate as token ids. target_rank: in the initial ranking; shown: the initial ranks in the order of the prompt.

    slate: its id in data/retrieve/slates.parquet. grades: by initial rank, where more than the target counts.
    """

    prompt: list[int]
    constraint: PermutationConstraint
    target_rank: int
    shown: tuple[int, ...]
    slate: int = -1
    grades: tuple[float, ...] = ()


@dataclass(frozen=True)
class Group:
    """Rollouts of one task, G unless rl.allocation says otherwise. answers: in initial ranks. parts: of rewards, unweighted, by name.

    drawn: the group as it was drawn, where these are some of it.
    """

    task: Task
    completions: list[Completion]
    answers: list[Answer]
    rewards: list[float]
    parts: dict[str, list[float]] = field(default_factory=dict)
    drawn: "Group | None" = None

    def rights(self) -> list[bool]:
        task = self.task
        return [answer.order is not None and is_right(answer.order, task.target_rank, task.grades) for answer in self.answers]

    def some(self, places: Sequence[int]) -> "Group":
        """With these of the rollouts alone."""
        parts = {name: [values[place] for place in places] for name, values in self.parts.items()}
        completions, answers = [self.completions[place] for place in places], [self.answers[place] for place in places]
        return Group(self.task, completions, answers, [self.rewards[place] for place in places], parts, self.drawn or self)


@dataclass(frozen=True)
class Rollouts:
    """kept: groups that teach. sampled: every group sampled in this step. refills: extra rounds it took. surplus: for the next step.

    dropped: answers of `sampled` that PROF took out of their groups.
    """

    kept: list[Group]
    sampled: list[Group]
    refills: int
    surplus: list[Group] = field(default_factory=list)
    dropped: int = 0


def sample_step(
    tasks: Iterator[Task],
    engine: Engine,
    reader: Reader,
    reward: RewardFunction,
    sampling: Sampling,
    params: RlParams,
    surplus: Sequence[Group] = (),
    rates: SuccessRates | None = None,
) -> Rollouts:
    """At most params.prompts groups that teach, from at most 1 + max_refills rounds of that many tasks.

    surplus: groups that the step before did not need; they come first, and are off-policy by that step. rates: for Knapsack's budgets.
    """
    kept, sampled, dropped = list(surplus), list[Group](), 0
    for round_number in range(params.max_refills + 1):
        # The first round fills what is missing. One task at least, so that every step sees what the policy does now.
        count = params.prompts if round_number else max(1, params.prompts - len(kept))
        batch = [next(tasks) for _ in range(count)]
        # A seed for each round: with the same seed, a task that comes round again would draw the same completions.
        options = Sampling(**{**sampling.__dict__, "seed": sampling.seed * (params.max_refills + 1) + round_number})
        completions = draw(batch, engine, options, params, rates)
        groups = score(batch, completions, reader, reward, params.consistent)
        sampled += groups
        if params.allocation.prof_share < 1:
            groups = [without_contradictions(group, params.allocation.prof_share) for group in groups]
            dropped += sum(map(len, completions)) - sum(len(group.rewards) for group in groups)
        # A group without a token, whose engine failed, has nothing to learn from, whatever its rewards.
        kept += [group for group in groups if any(one.token_ids for one in group.completions) and teaches(group, params)]
        is_short = len(kept) < params.prompts
        # What a process samples while it waits for others is its surplus.
        if not (all_sum(float(is_short)) if params.keep_surplus else is_short):
            break
    # Cut to `prompts`: every step and rank learns from groups of the same number, as far as there are enough.
    left = kept[params.prompts : 2 * params.prompts] if params.keep_surplus else []
    return Rollouts(kept[: params.prompts], sampled, round_number, left, dropped)


def draw(batch: Sequence[Task], engine: Engine, sampling: Sampling, params: RlParams, rates: SuccessRates | None) -> list[list[Completion]]:
    """Of each task, sampling.samples completions, or with `rates` as many as its budget says: as many in all."""
    prompts, constraints = [task.prompt for task in batch], [task.constraint for task in batch]
    if rates is None:
        return engine.generate(prompts, sampling, constraints)
    estimated = [rates.rate(task.slate, task.target_rank) for task in batch]
    counts = budgets(estimated, len(batch) * params.group, params.allocation.knapsack_least, params.allocation.knapsack_most)
    completions: dict[int, list[Completion]] = {}
    for count in sorted(set(counts)):
        places = [place for place, own in enumerate(counts) if own == count]
        asked = [prompts[place] for place in places], replace(sampling, samples=count), [constraints[place] for place in places]
        completions.update(zip(places, engine.generate(*asked, places), strict=True))
    return [completions[place] for place in range(len(batch))]


def without_contradictions(group: Group, share: float) -> Group:
    """By PROF, the process being how much of the facts the trace quotes."""
    constraint = group.task.constraint
    process = [grounding(one.token_ids, constraint.quotes, constraint.layout.think_end) for one in group.completions]
    return group.some(consistent(group.rights(), process, round(share * len(process))))


def teaches(group: Group, params: RlParams) -> bool:
    """Whether its rewards vary; under gdpo, whether a part of them does: parts that differ may have one sum.

    With credit for relevances one valid answer is enough: it is compared with what was not drawn. Under its lessons every group teaches:
    what breaks a trace is what they are there for.
    """
    if params.sorting_nll or params.quoting_nll or (params.credit == "relevance" and any(answer.valid for answer in group.answers)):
        return True
    rows = list(group.parts.values()) if params.reward == "gdpo" else [group.rewards]
    return bool(has_reward_variance(torch.tensor(rows), params.variance_tolerance).any())


def score(
    tasks: Sequence[Task], completions: Sequence[Sequence[Completion]], reader: Reader, reward: RewardFunction, consistent: bool = False
) -> list[Group]:
    """consistent: an answer that goes against the relevances of its own trace is a fault, `contradicts`."""
    groups = []
    for task, samples in zip(tasks, completions, strict=True):
        names, reasoning, layout = task.constraint.names, task.constraint.reasoning, task.constraint.layout
        read = [reader.read(completion.token_ids, names, reasoning) for completion in samples]
        if consistent:
            read = [
                CONTRADICTS if contradicts(answer, completion.token_ids, layout) else answer
                for answer, completion in zip(read, samples, strict=True)
            ]
        answers = [initial_ranks(answer, task) for answer in read]
        logprobs = [sum(completion.drawn_logprobs or completion.logprobs) for completion in samples]
        token_ids = [completion.token_ids for completion in samples]
        rewards = reward(task.constraint, task.target_rank, token_ids, answers, logprobs, task.grades)
        groups.append(Group(task, list(samples), answers, rewards.total, rewards.parts))
    return groups


class Judgement(NamedTuple):
    """A relevance in a completion: where it stands, of which candidate in the order shown, and its level."""

    place: int
    candidate: int
    level: int


def contradicts(answer: Answer, completion: Sequence[int], layout: LayoutTokenIds) -> bool:
    """Whether a candidate stands before one that the trace finds more relevant.

    False where the trace does not give one relevance for each candidate: then there is nothing to hold the answer against.
    """
    found = relevances_along(completion, layout)
    level_of = {one.candidate: one.level for one in found}
    if answer.order is None or len(found) != len(answer.order) or {*level_of} != {*answer.order}:
        return False
    return any(level_of[earlier] < level_of[later] for earlier, later in pairwise(answer.order))


def relevances_along(completion: Sequence[int], layout: LayoutTokenIds) -> list[Judgement]:
    """The relevances of a trace, as written. Each is of the candidate whose letter came last before it; where the layout's letters are no
    tokens of their own, of one candidate after the other."""
    level_of = {token: level for level, token in enumerate(layout.relevances)}
    letter_of = {token: candidate for candidate, token in enumerate(layout.letters)}
    found: list[Judgement] = []
    candidate = -1
    for place, token in enumerate(completion):
        if token == layout.think_end:
            break
        candidate = letter_of.get(token, candidate)
        if token in level_of:
            found.append(Judgement(place, candidate if letter_of else len(found), level_of[token]))
    return found


def initial_ranks(answer: Answer, task: Task) -> Answer:
    """The answer to the slate as shown, in ranks of the initial ranking: what the reward counts from."""
    return replace(answer, order=tuple(task.shown[rank] for rank in answer.order)) if answer.order is not None else answer
