"""How far answers agree with those of the model that is learnt from."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedModel

from stages.distil.answers import Answered
from stages.distil.params import DistilParams
from stages.shared.generation.answers import greedy_answers
from stages.shared.slates.answers import Answer
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.slate import Slate


def answers_of(model: PreTrainedModel, slates: Sequence[Slate], encoded: EncodedLayout, params: DistilParams) -> list[Answer]:
    """Greedy and free, of a model in memory."""
    constraints = encoded.constraints(slates, enforced=False)
    return greedy_answers(model, encoded, encoded.prompts(slates), constraints, params.max_tokens, params.engine.batch_size)


def agreement(answers: Sequence[Answer], reference: Sequence[Answered]) -> dict[str, float]:
    """For metrics.Agreement. reference: the reasoning model's, all of them permutations of the same slates."""
    known = [one.answer.order for one in reference]
    pairs = [(answer.order, order) for answer, order in zip(answers, known, strict=True) if answer.order is not None and order is not None]
    return {
        "valid": len(pairs) / len(answers),
        "first": sum(own[0] == other[0] for own, other in pairs) / len(answers),
        "kendall_tau": sum(kendall_tau(own, other) for own, other in pairs) / len(answers),
    }


def kendall_tau(own: Sequence[int], other: Sequence[int]) -> float:
    """Of two orders of the same candidates: the share of pairs in the same order minus the share in the other (Kendall 1938)."""
    places = np.empty(len(own), dtype=int)
    places[list(other)] = np.arange(len(other))
    in_other = places[list(own)]
    later = np.triu_indices(len(own), 1)
    return float(np.sign(in_other[later[1]] - in_other[later[0]]).mean())
