"""Slates that the model in training answers at every validation: NDCG@5, as evaluation measures it, of users it learns nothing from."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedModel

from stages.sft.params import SftParams
from stages.shared.core.errors import StageError
from stages.shared.core.launch import rank, world_size
from stages.shared.generation.answers import greedy_answers
from stages.shared.lm.encoding import WeightedExample
from stages.shared.slates.answers import Answer
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.reranking.padding import padded, padded_orders
from stages.shared.slates.slate import Slate, permuted
from stages.shared.slates.windows import training_windows
from stages.shared.stats.metrics import graded_metrics, slate_metrics
from stages.shared.training.validation import RankingCheck, RankingSums

BATCH = 32  # answers decoded at once, beside the memory of training


def choose_slates(slates: Sequence[Slate], users: Sequence[int], params: SftParams, window: int) -> list[Slate]:
    """At most params.validate_slates training slates of `users`, drawn by the seed, each in a random order of its candidates.

    Not those with an accepted trace alone: on these the teacher was right. StageError where the users have none.
    """
    # A slate of one candidate has one order.
    own = [slate for slate in training_windows(slates, window, params.seed) if slate.user in set(users) and len(slate.candidates) > 1]
    if not own:
        raise StageError(
            "params.yaml: sft.validate_slates: the held-out users have no training slate; raise sft.validate_share, or set it to 0"
        )
    rng = np.random.default_rng([params.seed, 3])
    chosen = [own[place] for place in rng.permutation(len(own))[: params.validate_slates]]
    # As traces and rl show them: the initial ranking says nothing.
    return [permuted(slate, rng.permutation(len(slate.candidates)).tolist()) for slate in chosen]


def ranking_check(slates: Sequence[Slate], encoded: EncodedLayout, max_tokens: int, decides: bool) -> RankingCheck:
    """max_tokens: of an answer; a model that writes more has not finished. Each process answers every world_size-th slate."""
    own = list(slates[rank() :: world_size()])
    prompts, constraints = encoded.prompts(own), encoded.constraints(own, enforced=False)

    def answer(model: PreTrainedModel) -> RankingSums:
        return ranking_sums(greedy_answers(model, encoded, prompts, constraints, max_tokens, BATCH), own)

    return RankingCheck(answer, decides)


def ranking_sums(answers: Sequence[Answer], slates: Sequence[Slate]) -> RankingSums:
    """An answer that is no permutation counts as the order shown."""
    orders = [answer.order or tuple(range(len(slate.candidates))) for answer, slate in zip(answers, slates, strict=True)]
    return RankingSums(_ndcg_sum(orders, slates), sum(answer.valid for answer in answers), len(slates))


def _ndcg_sum(orders: Sequence[Sequence[int]], slates: Sequence[Slate]) -> float:
    if any(slate.grades for slate in slates):
        measured = graded_metrics(padded_orders(orders), padded([slate.relevant for slate in slates], 0))
        return float(measured["ndcg@5"].sum())
    target_ranks = np.array([list(order).index(slate.target_rank) for order, slate in zip(orders, slates, strict=True)], dtype=np.int64)
    return float(slate_metrics(target_ranks)["ndcg@5"].sum())


def longest_completion(examples: Sequence[WeightedExample]) -> int:
    """Tokens from the first that counts: what the model is taught to write at most."""
    return max(len(example.ids) - next(place for place, weight in enumerate(example.weights) if weight) for example in examples)
