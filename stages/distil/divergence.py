"""Divergences between two models' distributions of the next token, over the whole vocabulary (GKD: Agarwal et al. 2024,
arXiv 2306.13649, On-Policy Distillation of Language Models; P the teacher, Q the student).

    forward   KL(P || Q) = sum_v P(v) log(P(v) / Q(v))
    reverse   KL(Q || P)
    jsd       beta KL(P || M) + (1 - beta) KL(Q || M),  M = beta P + (1 - beta) Q   (the paper's generalised Jensen-Shannon divergence)

jsd over beta goes to the forward one as beta goes to 0, and jsd over 1 - beta to the reverse one as beta goes to 1.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import log
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from stages.distil.params import DistilParams
from stages.shared.core.errors import StageError
from stages.shared.training.weighted_loss import changed_after_head, replaced_forward


def divergences(student_NV: Tensor, teacher_NV: Tensor, kind: str, beta: float = 0.5) -> Tensor:
    """Logits of both -> [N] nats, in float32."""
    logq_NV, logp_NV = (torch.log_softmax(logits.float(), dim=-1) for logits in (student_NV, teacher_NV))
    if kind == "forward":
        return _kl(logp_NV, logq_NV)
    if kind == "reverse":
        return _kl(logq_NV, logp_NV)
    logm_NV = torch.logaddexp(logp_NV + log(beta), logq_NV + log(1 - beta))
    return beta * _kl(logp_NV, logm_NV) + (1 - beta) * _kl(logq_NV, logm_NV)


def _kl(logp_NV: Tensor, logq_NV: Tensor) -> Tensor:
    return (logp_NV.exp() * (logp_NV - logq_NV)).sum(dim=-1)


def divergence_sum(
    student: PreTrainedModel, teacher: PreTrainedModel, ids: Tensor, positions: Tensor, weights: Tensor, params: DistilParams
) -> Tensor:
    """Sum of w * divergence at the places that predict a token of weight w; ids, positions and weights [B, L].

    Both heads read the hidden states of these places alone, params.loss_chunk at a time, and again in the backward pass: of all logits
    [tokens, vocabulary] one chunk of each model exists at any time.
    """
    inputs: dict[str, Any] = {"input_ids": ids, "position_ids": positions, "use_cache": False}
    counted = weights[:, 1:] > 0
    hidden_ND = student.base_model(**inputs).last_hidden_state[:, :-1][counted]
    with torch.no_grad():
        known_NE = teacher.base_model(**inputs).last_hidden_state[:, :-1][counted]
    heads: tuple[nn.Module, nn.Module] = (student.get_output_embeddings(), teacher.get_output_embeddings())
    parts = zip(*(part.split(params.loss_chunk) for part in (hidden_ND, known_NE, weights[:, 1:][counted])), strict=True)
    sums = [
        checkpoint(_chunk_sum, heads, *part, params.divergence, params.beta, use_reentrant=False, preserve_rng_state=False)
        for part in parts
    ]
    return torch.stack(sums).sum() if sums else hidden_ND.sum()


def _chunk_sum(
    heads: tuple[nn.Module, nn.Module], hidden_ND: Tensor, known_NE: Tensor, weights_N: Tensor, kind: str, beta: float
) -> Tensor:
    with torch.no_grad():
        teacher_NV = heads[1](known_NE)
    return (divergences(heads[0](hidden_ND), teacher_NV, kind, beta) * weights_N).sum()


@contextmanager
def divergence_forward(student: PreTrainedModel, teacher: PreTrainedModel, params: DistilParams) -> Iterator[None]:
    """While open, student(input_ids, position_ids, weights) is divergence_sum: DDP and DeepSpeed know a model by its forward alone.

    StageError for a model that changes its logits after its head.
    """
    for model in (student, teacher):
        if changed := changed_after_head(model):
            name = model.config.get_text_config().name_or_path or type(model).__name__
            raise StageError(
                f"{name}: distil.mode: on_policy compares what the heads of both models say, and "
                f"this one changes its logits after its head ({changed}); choose distil.mode: answer_only, which compares nothing"
            )

    def forward(self: Any, input_ids: Tensor, position_ids: Tensor, weights: Tensor) -> Tensor:
        return divergence_sum(self, teacher, input_ids, position_ids, weights, params)

    with replaced_forward(student, forward):
        yield


@contextmanager
def own_forward(model: PreTrainedModel) -> Iterator[None]:
    """While open, `model` computes logits again, for sampling."""
    replaced = model.__dict__.pop("forward", None)
    try:
        yield
    finally:
        if replaced is not None:
            model.forward = replaced
