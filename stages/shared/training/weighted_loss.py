"""The loss of supervised training: cross-entropy of weighted tokens, from whole logits or from the head in chunks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from stages.shared.core.errors import StageError
from stages.shared.training.ordinal import OrdinalWords

# Keys of a configuration whose model does more to its logits than its head does.
AFTER_THE_HEAD = ("final_logit_softcapping", "logit_scale", "logits_scaling")
LEAST_WEIGHT = 1e-6  # a batch of context alone has no weight: a loss of 0, not NaN


def token_losses(logits_NV: Tensor, targets_N: Tensor, ordinal: OrdinalWords | None) -> Tensor:
    losses_N = F.cross_entropy(logits_NV.float(), targets_N, reduction="none")
    return ordinal.losses(logits_NV, targets_N, losses_N) if ordinal else losses_N


def weighted_loss(logits: Tensor, ids: Tensor, weights: Tensor, ordinal: OrdinalWords | None = None, total: Tensor | None = None) -> Tensor:
    """Sum of w * -log p over `total`, by default the sum of w.

    logits [B, L, V] predict ids [B, L] shifted by one; weights [B, L] belong to ids.
    """
    losses = token_losses(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), ordinal)
    flat = weights[:, 1:].flatten()
    return (losses * flat).sum() / (flat.sum() if total is None else total).clamp_min(LEAST_WEIGHT)


def chunked_loss_sum(
    model: PreTrainedModel, ids: Tensor, positions: Tensor, weights: Tensor, chunk: int, ordinal: OrdinalWords | None
) -> Tensor:
    """Sum of w * -log p; no tensor of logits has more than `chunk` rows. ids, positions and weights [B, L].

    The head reads the hidden states of tokens with weight alone, a chunk at a time, and again in the backward pass, so that of all logits
    one chunk exists at any time (Wijmans et al. 2024, arXiv 2411.09009, give the memory that whole logits take).
    """
    hidden_BLD = model.base_model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
    counted = weights[:, 1:] > 0
    hidden_ND, targets_N, weights_N = hidden_BLD[:, :-1][counted], ids[:, 1:][counted], weights[:, 1:][counted]
    calls = _most_of_all_processes(-(-len(targets_N) // chunk), ids.device)
    if calls * chunk > len(targets_N):
        # A process with fewer tokens calls the head as often as the others: under ZeRO-3 each call gathers its weight from all of them.
        missing = calls * chunk - len(targets_N)
        hidden_ND = torch.cat([hidden_ND, hidden_BLD[:1, :1].expand(missing, 1, -1)[:, 0]])
        targets_N, weights_N = F.pad(targets_N, (0, missing)), F.pad(weights_N, (0, missing))
    head: nn.Module = model.get_output_embeddings()  # called as a module, whose hooks gather its weight where it is shared out
    sums = [
        checkpoint(_chunk_sum, head, *part, ordinal, use_reentrant=False, preserve_rng_state=False)
        for part in zip(hidden_ND.split(chunk), targets_N.split(chunk), weights_N.split(chunk), strict=True)
    ]
    return torch.stack(sums).sum()


def _chunk_sum(head: nn.Module, hidden_ND: Tensor, targets_N: Tensor, weights_N: Tensor, ordinal: OrdinalWords | None) -> Tensor:
    return (token_losses(head(hidden_ND), targets_N, ordinal) * weights_N).sum()


def _most_of_all_processes(count: int, device: torch.device) -> int:
    """At least 1: a process without any token that counts takes part with a loss of 0."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return max(1, count)
    most = torch.tensor([count], device=device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return max(1, int(most))


@contextmanager
def chunked_forward(model: PreTrainedModel, chunk: int, ordinal: OrdinalWords | None) -> Iterator[None]:
    """While open, model(input_ids, position_ids, weights) is chunked_loss_sum: DDP and DeepSpeed know a model by its forward alone.

    StageError for a model that changes its logits after its head.
    """
    if changed := changed_after_head(model):
        raise StageError(f"params.yaml: loss_chunk: {type(model).__name__} changes its logits after its head ({changed}); set it to 0")

    def forward(self: Any, input_ids: Tensor, position_ids: Tensor, weights: Tensor) -> Tensor:
        return chunked_loss_sum(self, input_ids, position_ids, weights, chunk, ordinal)

    with replaced_forward(model, forward):
        yield


@contextmanager
def replaced_forward(model: PreTrainedModel, forward: Callable[..., Any]) -> Iterator[None]:
    """While open, calling `model` is forward(model, ...)."""
    model.forward = MethodType(forward, model)
    try:
        yield
    finally:
        # Of the instance, the class's own is behind it; a Trainer may have put its autocast around ours.
        model.__dict__.pop("forward", None)


def changed_after_head(model: PreTrainedModel) -> str:
    """The key of its configuration by which `model` does more to its logits than its head does; empty where none does."""
    config = model.config.get_text_config()
    return next((key for key in AFTER_THE_HEAD if getattr(config, key, None) not in (None, 1, 1.0)), "")


@contextmanager
def plain_forward(model: PreTrainedModel) -> Iterator[None]:
    """While open, the model's forward is that of its class: logits of all positions, without chunks and without a Trainer's autocast."""
    patched = model.__dict__.pop("forward", None)
    try:
        yield
    finally:
        if patched is not None:
            model.forward = patched
