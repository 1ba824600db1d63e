"""Log-probabilities of responses under the policy: the group's prompt read once (shared prefix), or again for each response."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from stages.rl.distribution import Masks, token_logprobs


def response_logprobs(
    model: Any,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Sequence[int]]],
    pad_id: int,
    shared_prefix: bool = True,
    temperature: float = 1.0,
    masks: Masks = None,
) -> tuple[Tensor, Tensor]:
    """prompts: P lists of ids; responses: P x G lists. Returns log-probabilities and mask, both [P * G, T], with gradient.

    temperature, masks: of the distribution that the responses were drawn from (distribution.py).

    Prompts are left-padded and run once with a cache; the cache is repeated G times and each response continues its own copy,
    which is the same function as running prompt + response for each sample, at about half the tokens. Without `shared_prefix` it does run
    these: a cache cannot be recomputed, so that is the way under gradient checkpointing.
    """
    device = next(model.parameters()).device
    if not shared_prefix:
        return _row_by_row(model, prompts, responses, pad_id, device, temperature, masks)
    group = len(responses[0])
    width = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    # The prompt's tokens count from 0 as without padding; the padding before them is masked, whatever its position.
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    cache = DynamicCache()
    first = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
    ).logits[:, -1]

    flat = [response for group_responses in responses for response in group_responses]
    length = max(map(len, flat))
    tokens = torch.tensor([list(r) + [pad_id] * (length - len(r)) for r in flat], device=device)
    counted = torch.tensor([[1.0] * len(r) + [0.0] * (length - len(r)) for r in flat], device=device)
    cache.batch_repeat_interleave(group)
    full_mask = torch.cat([mask.repeat_interleave(group, 0), counted.long()], dim=1)
    start = mask.sum(-1).repeat_interleave(group, 0)[:, None]
    rest = model(
        input_ids=tokens,
        attention_mask=full_mask,
        position_ids=start + torch.arange(length, device=device),
        past_key_values=cache,
        use_cache=True,
    ).logits[:, :-1]
    # The prompt's last token predicts the response's first, and each token of the response the next one.
    logits = torch.cat([first.repeat_interleave(group, 0)[:, None], rest], dim=1)
    return token_logprobs(logits, tokens, temperature, masks), counted


def _row_by_row(
    model: Any,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Sequence[int]]],
    pad_id: int,
    device: torch.device,
    temperature: float,
    masks: Masks,
) -> tuple[Tensor, Tensor]:
    """As response_logprobs: P * G rows, padded on both sides so that all responses begin at one place."""
    rows = [(prompt, response) for prompt, own in zip(prompts, responses, strict=True) for response in own]
    width, length = max(map(len, prompts)), max(len(response) for _, response in rows)
    ids, mask = [], []
    for prompt, response in rows:
        before, after = width - len(prompt), length - len(response)
        ids.append([pad_id] * before + list(prompt) + list(response) + [pad_id] * after)
        mask.append([0] * before + [1] * (len(prompt) + len(response)) + [0] * after)
    ids_BL, mask_BL = torch.tensor(ids, device=device), torch.tensor(mask, device=device)
    positions_BL = (mask_BL.cumsum(-1) - 1).clamp_min(0)
    logits = model(input_ids=ids_BL, attention_mask=mask_BL, position_ids=positions_BL, use_cache=False, logits_to_keep=length + 1).logits[
        :, :-1
    ]
    return token_logprobs(logits, ids_BL[:, width:], temperature, masks), mask_BL[:, width:].float()
