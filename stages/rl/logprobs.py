"""Log-probabilities of responses under the policy, in three forms of one function (`rl.shared_prefix`):

- cache: the group's prompt is read once into a key-value cache, and each response continues its own copy;
- tree: one row a group, the prompt once and its responses behind it (prefix_tree.py): as few tokens, and nothing that cannot be recomputed;
- none: prompt and response in a row of their own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache, PreTrainedModel

from stages.rl.distribution import PLAIN, Drawn, entropies, logprobs_of, open_logits, open_rows
from stages.rl.prefix_tree import Tree
from stages.shared.core.errors import StageError
from stages.shared.training.weighted_loss import changed_after_head, replaced_forward

Ids = Sequence[Sequence[int]]
ThreeTensors = tuple[Tensor, Tensor, Tensor]


class Scores(NamedTuple):
    """[P * G, T] each. mask: 1 on tokens of a response. entropy: of the token's distribution, nats, without gradient; of a cache where it
    is asked for.

    beside: log-probabilities of the tokens that Drawn.beside names, [P * G, T, L], with gradient.
    """

    logp: Tensor
    mask: Tensor
    entropy: Tensor | None = None
    beside: Tensor | None = None


class Rows(NamedTuple):
    """What the decoder reads, and which of its hidden states, all rows behind each other, predict which token: place_N, target_N."""

    inputs: dict[str, Any]
    place_N: Tensor
    target_N: Tensor


def response_logprobs(
    model: Any, prompts: Ids, responses: Sequence[Ids], pad_id: int, drawn: Drawn = PLAIN, with_entropy: bool = False
) -> Scores:
    """prompts: P lists of ids; responses: P x G lists (G may differ). Scores with gradient.

    Prompts are left-padded and run once with a cache; the cache is repeated G times and each response continues its own copy,
    which is the same function as running prompt + response for each sample, at about half the tokens.
    """
    device = next(model.parameters()).device
    sizes = list(map(len, responses))
    group: Any = sizes[0] if len(set(sizes)) == 1 else torch.tensor(sizes, device=device)
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
    opened = open_rows(logits, drawn, list(map(len, flat)))
    logp, beside = logprobs_of(opened, tokens, drawn)
    return Scores(logp, counted, entropies(opened) if with_entropy else None, beside)


def tree_rows(prompts: Ids, responses: Sequence[Ids], device: torch.device) -> Rows:
    """One row of all groups, each a tree: no padding at all, and positions that start again behind the prompt in every response."""
    ids: list[int] = []
    positions: list[int] = []
    places: list[int] = []
    for prompt, own in zip(prompts, responses, strict=True):
        trunk = len(ids) + len(prompt) - 1
        ids += prompt
        positions += range(len(prompt))
        for response in own:
            # The prompt's last token predicts the first of every response; one without tokens (an engine's fault) has none.
            places += [trunk, *range(len(ids), len(ids) + len(response) - 1)][: len(response)]
            ids += response
            positions += range(len(prompt), len(prompt) + len(response))
    inputs = {
        "input_ids": torch.tensor([ids], device=device),
        "position_ids": torch.tensor([positions], device=device),
        # Of four dimensions, so that transformers takes it as it is and makes none of the row's square; the trees say who sees whom.
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
        "trees": [Tree(len(prompt), tuple(map(len, own))) for prompt, own in zip(prompts, responses, strict=True)],
    }
    return Rows(inputs, torch.tensor(places, device=device), _targets(responses, device))


def plain_rows(prompts: Ids, responses: Sequence[Ids], pad_id: int, device: torch.device) -> Rows:
    """P * G rows of prompt and response, padded on the right, where no token looks."""
    pairs = [(prompt, response) for prompt, own in zip(prompts, responses, strict=True) for response in own]
    width = max(len(prompt) + len(response) for prompt, response in pairs)
    ids = [[*prompt, *response, *[pad_id] * (width - len(prompt) - len(response))] for prompt, response in pairs]
    starts = [row * width + len(prompt) - 1 for row, (prompt, _) in enumerate(pairs)]
    places = [place for start, (_, response) in zip(starts, pairs, strict=True) for place in range(start, start + len(response))]
    inputs = {"input_ids": torch.tensor(ids, device=device), "position_ids": torch.arange(width, device=device).expand(len(pairs), -1)}
    return Rows(inputs, torch.tensor(places, device=device), _targets(responses, device))


def _targets(responses: Sequence[Ids], device: torch.device) -> Tensor:
    return torch.tensor([token for own in responses for response in own for token in response], device=device)


def row_scores(
    forward: Any, model: PreTrainedModel, rows: Rows, responses: Sequence[Ids], chunk: int, calls: int, drawn: Drawn = PLAIN
) -> Scores:
    """forward: the model, or the engine around it. chunk, calls: see chunked_scores."""
    with scoring_forward(model):
        found = forward(**rows.inputs, place_N=rows.place_N, target_N=rows.target_N, chunk=chunk, calls=calls, drawn=drawn)
    logp_N, entropy_N, beside_NL = found
    lengths = torch.tensor([len(response) for own in responses for response in own], device=logp_N.device)
    mask = torch.arange(int(lengths.max()), device=logp_N.device) < lengths[:, None]
    logp, entropy = (torch.zeros(mask.shape, device=logp_N.device).masked_scatter(mask, values) for values in (logp_N, entropy_N))
    beside = torch.zeros(*mask.shape, beside_NL.shape[-1], device=logp_N.device).masked_scatter(mask[..., None], beside_NL)
    return Scores(logp, mask.float(), entropy, beside)


@contextmanager
def scoring_forward(model: PreTrainedModel) -> Iterator[None]:
    """While open, model(**inputs, place_N, target_N, chunk, calls, drawn) gives chunked_scores.

    Its forward, because DeepSpeed knows a model by that alone: it gathers what is shared out before it, and lets go after it.
    """

    def forward(self: Any, place_N: Tensor, target_N: Tensor, chunk: int, calls: int, drawn: Drawn, **inputs: Any) -> ThreeTensors:
        hidden_BLD = self.base_model(**inputs, use_cache=False).last_hidden_state
        return chunked_scores(self.get_output_embeddings(), hidden_BLD.flatten(0, 1)[place_N], target_N, chunk, calls, drawn)

    with replaced_forward(model, forward):
        yield


def chunked_scores(head: nn.Module, hidden_ND: Tensor, target_N: Tensor, chunk: int, calls: int = 0, drawn: Drawn = PLAIN) -> ThreeTensors:
    """Log-probabilities of the targets and entropies, [N] each, and log-probabilities of `drawn.beside` [N, L].

    No tensor of logits has more than `chunk` rows (0: as many as there are).
    Each chunk's logits are made again in the backward pass. calls: of the head, at the least: under ZeRO-3 each gathers its weight from all
    processes, so that one with fewer tokens has to call it as often as the others.
    """
    count = len(target_N)
    if not chunk:
        return _scores(head, hidden_ND, target_N, drawn)
    missing = max((calls - 1) * chunk + 1 - count, 0)
    hidden_ND, target_N = F.pad(hidden_ND, (0, 0, 0, missing)), F.pad(target_N, (0, missing))
    parts = [
        checkpoint(_scores, head, *part, drawn.tokens(number * chunk, chunk), use_reentrant=False, preserve_rng_state=False)
        for number, part in enumerate(zip(hidden_ND.split(chunk), target_N.split(chunk), strict=True))
    ]
    logp_N, entropy_N, beside_NL = (torch.cat(values)[:count] for values in zip(*parts, strict=True))
    return logp_N, entropy_N, beside_NL


def _scores(head: nn.Module, hidden_ND: Tensor, target_N: Tensor, drawn: Drawn) -> ThreeTensors:
    logits_NV = open_logits(head(hidden_ND), drawn)
    logp_N = -F.cross_entropy(logits_NV, target_N, reduction="none")
    beside_NL = logits_NV[:, list(drawn.beside)]
    beside_NL = beside_NL - logits_NV.logsumexp(-1, keepdim=True) if drawn.beside else beside_NL
    return logp_N, entropies(logits_NV), beside_NL


def refuse_changed_logits(model: PreTrainedModel, setting: str) -> None:
    """StageError for a model that does more to its logits than its head does: here the head is called by itself."""
    if changed := changed_after_head(model):
        raise StageError(
            f"params.yaml: {setting}: {type(model).__name__} changes its logits after its head ({changed}); "
            "set rl.shared_prefix: cache and rl.gradient_checkpointing: false"
        )
