"""One policy: the trainer scores a token in the distribution that the sampler drew it from, at its temperature and under its constraint.

Scored by the model's own distribution instead, a token drawn at temperature 0.7 or forced by the constraint has a wrong ratio and a
gradient that pays for what nobody chose.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stages.shared.core.errors import StageError
from stages.shared.generation.base import Completion
from stages.shared.generation.transformers_engine import apply_masks
from stages.shared.slates.constraint import FREE, PermutationConstraint, TokenMask


@dataclass(frozen=True)
class Drawn:
    """How tokens were drawn. masks: one a token, all responses behind each other; None: nothing was forbidden.

    beside: token ids whose log-probabilities are asked for at every token, beside that of the one drawn.
    """

    temperature: float = 1.0
    masks: Sequence[TokenMask] | None = None
    beside: tuple[int, ...] = ()

    def tokens(self, start: int, count: int) -> "Drawn":
        """The same of some of the tokens."""
        return self if self.masks is None else replace(self, masks=self.masks[start : start + count])


PLAIN = Drawn()  # the model's own distribution


def open_logits(logits_NV: Tensor, drawn: Drawn) -> Tensor:
    """float32 logits of the distribution that N tokens were drawn from: over the temperature, -inf where the constraint forbade.

    Rows beyond the masks are padding.
    """
    logits_NV = logits_NV.float()
    if drawn.masks is not None:
        logits_NV = apply_masks(logits_NV, drawn.masks)
    return logits_NV if drawn.temperature == 1 else logits_NV / drawn.temperature


def token_logprobs(logits_BTV: Tensor, tokens_BT: Tensor, drawn: Drawn, lengths: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """log p of each token, float32 [B, T], and of those `beside` it [B, T, L], with gradient. lengths: of the responses, for the masks.

    The logits may be of any precision. A token that was the only one allowed has log p = 0 and no gradient.
    """
    return logprobs_of(open_rows(logits_BTV, drawn, lengths), tokens_BT, drawn)


def open_rows(logits_BTV: Tensor, drawn: Drawn, lengths: Sequence[int] | None = None) -> Tensor:
    """open_logits of padded rows."""
    batch, width, vocabulary = logits_BTV.shape
    if drawn.masks is not None:
        assert lengths is not None
        rows, start = list[TokenMask](), 0
        for length in lengths:
            rows += [*drawn.masks[start : start + length], *[FREE] * (width - length)]
            start += length
        drawn = replace(drawn, masks=rows)
    return open_logits(logits_BTV.reshape(-1, vocabulary), drawn).view(batch, width, vocabulary)


def logprobs_of(opened_BTV: Tensor, tokens_BT: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
    """As token_logprobs, of what open_rows gives."""
    logp_BTV = torch.log_softmax(opened_BTV, dim=-1)
    return logp_BTV.gather(-1, tokens_BT[..., None])[..., 0], logp_BTV[..., list(drawn.beside)]


def entropies(opened: Tensor) -> Tensor:
    """Of the distributions along the last dimension, nats, without gradient."""
    with torch.no_grad():
        return torch.special.entr(torch.softmax(opened, dim=-1)).sum(-1)


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
