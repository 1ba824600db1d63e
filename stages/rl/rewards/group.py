"""The rewards of one slate's answers, as rl's parameters say."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from stages.rl.params import RlParams
from stages.rl.rewards.combine import COMBINATIONS, Earned
from stages.rl.rewards.negatives import rank_aware_negatives
from stages.rl.rewards.orders import auc_gain, gains_of, graded_promotion, is_right, log_sigmoid, ndcg_gain, promotion
from stages.rl.rewards.tokens import brevity, grounding, overlong
from stages.shared.core.errors import StageError
from stages.shared.slates.answers import Answer
from stages.shared.slates.constraint import PermutationConstraint

PAID_ALWAYS = ("length", "negatives", "overlong")


class GroupRewards(NamedTuple):
    """total: of each answer. parts: name -> of each answer, unweighted; those with a weight alone, in the order of `weights`."""

    total: list[float]
    parts: dict[str, list[float]]


class Rewarder:
    """Stateless but for the control `random`, whose numbers go on where a saved run stopped."""

    def __init__(self, params: RlParams):
        self.params = params
        # The control: a reward that says nothing must teach nothing.
        self.rng = np.random.default_rng(params.seed) if params.reward == "random" else None
        self.weights = part_weights(params)

    def __call__(
        self,
        constraint: PermutationConstraint,
        target_rank: int,
        completions: Sequence[Sequence[int]],
        answers: Sequence[Answer],
        logprobs: Sequence[float],
        grades: Sequence[float] = (),
    ) -> GroupRewards:
        """completions: token ids. answers: in ranks of the initial ranking. logprobs: of each whole completion, when it was drawn.

        grades: of each candidate, where slates were logged; else the target alone counts.
        """
        if self.rng is not None:
            return GroupRewards([float(self.rng.random()) for _ in answers], {})
        params = self.params
        parts = {"rank": [self._rank(answer, target_rank, grades) for answer in answers]}
        if "format" in self.weights:
            parts["format"] = [float(answer.valid) for answer in answers]
        if "grounding" in self.weights:
            if not constraint.quotes:
                raise StageError(
                    "params.yaml: rl.grounding_weight: this prompt's layout has no quoted facts to hold a trace against; set it to 0"
                )
            parts["grounding"] = [grounding(ids, constraint.quotes, constraint.layout.think_end) for ids in completions]
        if "length" in self.weights:
            parts["length"] = _lengths(completions, answers, target_rank, params.max_tokens, grades)
        if "negatives" in self.weights:
            best = {rank for rank, gain in enumerate(grades) if gain == max(grades)} or {target_rank}
            hits = [answer.order is not None and answer.order[0] in best for answer in answers]
            parts["negatives"] = rank_aware_negatives(hits, logprobs)
        if "overlong" in self.weights:
            parts["overlong"] = [overlong(len(ids), params.max_tokens, params.overlong_buffer) for ids in completions]
        combine = COMBINATIONS[params.reward]
        total = []
        for number, answer in enumerate(answers):
            extra = params.grounding_weight * parts["grounding"][number] if "grounding" in parts else 0.0
            earned = combine(Earned(answer, target_rank, parts["rank"][number], extra, grades), params.alpha)
            # Paid whatever the combination: its own condition is the group's, or it is a punishment.
            total.append(earned + sum(self.weights[name] * parts[name][number] for name in PAID_ALWAYS if name in parts))
        return GroupRewards(total, parts)

    def _rank(self, answer: Answer, target_rank: int, grades: Sequence[float]) -> float:
        return rank_reward(answer.order, target_rank, self.params, grades) if answer.order is not None else self.params.invalid_reward

    def state(self) -> Any:
        return self.rng.bit_generator.state if self.rng is not None else None

    def load_state(self, state: Any) -> None:
        if self.rng is not None:
            self.rng.bit_generator.state = state


def rank_reward(order: Sequence[int], target_rank: int, params: RlParams, grades: Sequence[float] = ()) -> float:
    """Of a permutation, as rl.rank_reward says."""
    gains = gains_of(len(order), target_rank, grades)
    if params.rank_reward == "promotion":
        return graded_promotion(order, gains) if grades else promotion(order, target_rank)
    if params.rank_reward == "auc":
        return auc_gain(order, gains)
    gain = ndcg_gain(order, gains)
    return gain if params.rank_reward == "ndcg" else log_sigmoid(gain, params.log_sigmoid_scale)


def reward_of_order(order: Sequence[int], target_rank: int, params: RlParams, grades: Sequence[float] = ()) -> float:
    """Of a permutation: its rank, and its format as rl.reward pays it; nothing of what is paid for more than the order."""
    rank = rank_reward(order, target_rank, params, grades)
    return COMBINATIONS[params.reward](Earned(Answer(tuple(order), ""), target_rank, rank, 0.0, grades), params.alpha)


def part_weights(params: RlParams) -> dict[str, float]:
    """Those that are not 0."""
    if params.reward == "random":
        return {}
    weights = {"rank": 1.0, "format": params.alpha, "grounding": params.grounding_weight, "length": params.length_weight}
    weights["negatives"] = params.negatives_weight
    weights["overlong"] = float(params.overlong == "soft")
    return {name: weight for name, weight in weights.items() if weight}


def _lengths(
    completions: Sequence[Sequence[int]], answers: Sequence[Answer], target_rank: int, longest: int, grades: Sequence[float] = ()
) -> list[float]:
    """Brevity in groups that are all right, 0 in others: it never competes with being right (ConciseR, arXiv 2505.21178)."""
    all_right = all(answer.order is not None and is_right(answer.order, target_rank, grades) for answer in answers)
    return [brevity(len(ids), longest) if all_right else 0.0 for ids in completions]


RewardFunction = Callable[
    [PermutationConstraint, int, Sequence[Sequence[int]], Sequence[Answer], Sequence[float], Sequence[float]], GroupRewards
]
