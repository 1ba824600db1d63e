"""One policy: the trainer scores a token in the distribution that the sampler drew it from, at its temperature and under its constraint.

Scored by the model's own distribution instead, a token drawn at temperature 0.7 or forced by the constraint has a wrong ratio and a
gradient that pays for what nobody chose.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from stages.shared.core.errors import StageError
from stages.shared.generation.base import Completion
from stages.shared.generation.transformers_engine import apply_masks
from stages.shared.slates.constraint import FREE, PermutationConstraint, TokenMask

Masks = Sequence[Sequence[TokenMask]] | None  # one list a response, one mask a token of it; None: nothing is forbidden


def token_logprobs(logits_BTV: Tensor, tokens_BT: Tensor, temperature: float = 1.0, masks: Masks = None) -> Tensor:
    """log p of each token, float32 [B, T], with gradient. The logits may be of any precision.

    A token that was the only one allowed has log p = 0 and no gradient.
    """
    logits_BTV = logits_BTV.float()
    if masks is not None:
        batch, length, vocabulary = logits_BTV.shape
        flat = [mask for row in masks for mask in [*row, *[FREE] * (length - len(row))]]
        logits_BTV = apply_masks(logits_BTV.reshape(-1, vocabulary), flat).view(batch, length, vocabulary)
    if temperature != 1:
        logits_BTV = logits_BTV / temperature
    return torch.log_softmax(logits_BTV, dim=-1).gather(-1, tokens_BT[..., None])[..., 0]


def masks_along(constraint: PermutationConstraint, token_ids: Sequence[int]) -> list[TokenMask]:
    """What the constraint left open at each token of a completion."""
    state, masks = constraint.start(), []
    for token in token_ids:
        masks.append(state.mask())
        state.advance(token)
    return masks


def sampler_logprobs(completion: Completion, temperature: float, constrained: bool) -> list[float]:
    """The sampler's own numbers, of the distribution it drew from. StageError where the engine does not give them."""
    if completion.drawn_logprobs or not completion.token_ids:
        return completion.drawn_logprobs
    if temperature != 1 or constrained:
        raise StageError(
            f"params.yaml: rl.temperature {temperature}, rl.constrained {constrained}: the engine gives no log-probabilities of the "
            "distribution that it draws from; set temperature to 1.0 and constrained to false, or sample with transformers"
        )
    return completion.logprobs
