"""How far the quantized model's predictions lie from the full one's, from the last layer's outputs of both."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from stages.quantize.layers import HiddenBatch
from stages.quantize.params import CHUNK


@torch.no_grad()
def divergence(
    full: Sequence[HiddenBatch], quantized: Sequence[HiddenBatch], full_head: Callable[[Tensor], Tensor], head: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """Means over the predicted tokens; KL(full || quantized) in nats. Heads: hidden [n, D] -> logits [n, V]."""
    tokens = error = kl = agreement = 0.0
    for before_ND, after_ND in _predicting(full, quantized):
        before_NV, after_NV = full_head(before_ND).float(), head(after_ND).float()
        tokens += len(before_NV)
        error += float((before_NV - after_NV).abs().double().mean(-1).sum())
        agreement += float((before_NV.argmax(-1) == after_NV.argmax(-1)).sum())
        # In double precision: at 8 bits the divergence is a small difference between large sums.
        before_NV, after_NV = torch.log_softmax(before_NV.double(), -1), torch.log_softmax(after_NV.double(), -1)
        kl += float((before_NV.exp() * (before_NV - after_NV)).sum())
    return {
        "tokens": int(tokens),
        "mean_abs_logit_error": error / tokens,
        "kl": max(kl / tokens, 0.0),
        "top1_agreement": agreement / tokens,
    }


def _predicting(full: Sequence[HiddenBatch], quantized: Sequence[HiddenBatch]) -> Iterator[tuple[Tensor, Tensor]]:
    for before, after in zip(full, quantized, strict=True):
        rows = before.hidden_BLD[before.predicts_BL], after.hidden_BLD[after.predicts_BL]
        yield from zip(rows[0].split(CHUNK), rows[1].split(CHUNK), strict=True)
