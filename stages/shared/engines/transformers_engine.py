"""Generation with a transformers model in this process: one batched decoding loop with a cache that is not copied every step."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from stages.shared.engines.base import Completion, Sampling
from stages.shared.engines.kv_cache import RoomyLayer
from stages.shared.errors import StageError
from stages.shared.guide import Guide, GuideState

COMPACT_BELOW = 0.75  # of a batch's rows still running: then the rest moves to a smaller batch, at the price of one copy of its cache


class TransformersEngine:
    """Holds a reference to `model`: weights trained between two calls are the weights the second one samples from."""

    def __init__(self, model: PreTrainedModel, pad_id: int, end_id: int, batch_size: int = 128):
        self.model, self.pad_id, self.end_id, self.batch_size = model, pad_id, end_id, batch_size

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, guides: Sequence[Guide] | None = None
    ) -> list[list[Completion]]:
        """See Engine. What a row draws depends on (seed, prompt's place, sample), not on batch_size, rounding of sums apart.

        StageError where a prompt is empty or leaves no room in the model's positions.
        """
        self._check(prompts, sampling)
        results: dict[tuple[int, int], Completion] = {}
        training = self.model.training
        self.model.train(False)
        with torch.no_grad(), tqdm(total=len(prompts) * sampling.samples, desc="generate", unit="row", delay=3) as progress:
            for rows in self._batches(prompts, sampling.samples):
                results.update(zip(rows, self._decode(rows, prompts, sampling, guides), strict=True))
                progress.update(len(rows))
        self.model.train(training)
        return [[results[prompt, sample] for sample in range(sampling.samples)] for prompt in range(len(prompts))]

    def close(self) -> None:
        del self.model

    def _check(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> None:
        for place, prompt in enumerate(prompts):
            if len(prompt) == 0:
                raise StageError(f"prompt {place} is empty; there is nothing to continue")
        room = getattr(self.model.config, "max_position_embeddings", None)
        longest = max(map(len, prompts), default=0)
        if room is not None and longest + sampling.max_tokens > room:
            raise StageError(
                f"a prompt of {longest} tokens and max_tokens {sampling.max_tokens} exceed the model's {room} positions; "
                "tell less history (prompt.history), lower max_tokens, or train a model with more positions"
            )

    def _batches(self, prompts: Sequence[Sequence[int]], samples: int) -> Iterator[list[tuple[int, int]]]:
        """(prompt, sample) pairs, longest prompts first: little padding, and memory peaks at once.

        A batch that is half full closes where the length changes: attention without a padding mask is worth more than a full batch.
        """
        order = sorted(range(len(prompts)), key=lambda prompt: (-len(prompts[prompt]), prompt))
        batch: list[tuple[int, int]] = []
        for prompt, sample in ((prompt, sample) for prompt in order for sample in range(samples)):
            other_length = batch and len(prompts[batch[-1][0]]) != len(prompts[prompt])
            if len(batch) == self.batch_size or (other_length and 2 * len(batch) >= self.batch_size):
                yield batch
                batch = []
            batch.append((prompt, sample))
        if batch:
            yield batch

    def _decode(
        self, rows: list[tuple[int, int]], prompts: Sequence[Sequence[int]], sampling: Sampling, guides: Sequence[Guide] | None
    ) -> list[Completion]:
        distinct = sorted({prompt for prompt, _ in rows}, key=lambda prompt: (-len(prompts[prompt]), prompt))
        logits_BV, cache, mask_BL = self._prefill([prompts[prompt] for prompt in distinct])
        device = logits_BV.device
        source = torch.tensor([distinct.index(prompt) for prompt, _ in rows], device=device)
        if len(rows) > len(distinct):
            logits_BV = logits_BV[source]
            cache.batch_select_indices(source)
        mask_BL = None if mask_BL is None else mask_BL[source]
        position_B1 = torch.tensor([[len(prompts[prompt])] for prompt, _ in rows], device=device)
        draws_BT = _draws(rows, sampling).to(device)

        tokens_BT = torch.full((len(rows), sampling.max_tokens), self.pad_id, device=device)
        logprobs_BT = torch.zeros((len(rows), sampling.max_tokens), device=device)
        lengths_B = torch.full((len(rows),), sampling.max_tokens, device=device)
        states = [guides[prompt].start() for prompt, _ in rows] if guides else []
        live = torch.arange(len(rows), device=device)  # which row each line of the running batch is
        for step in range(sampling.max_tokens):
            logprobs_BV = torch.log_softmax(logits_BV.float(), dim=-1)
            open_BV = guided(logprobs_BV, [states[row] for row in live.tolist()]) if states else logprobs_BV
            token_B = choose(open_BV, draws_BT[live, step], sampling)
            for row, token in zip(live.tolist(), token_B.tolist(), strict=True) if states else ():
                states[row].advance(token)
            tokens_BT[live, step] = token_B
            logprobs_BT[live, step] = logprobs_BV.gather(1, token_B[:, None])[:, 0]
            ended_B = token_B == self.end_id
            lengths_B[live[ended_B]] = torch.clamp(lengths_B[live[ended_B]], max=step + 1)
            running_B = lengths_B[live] > step + 1
            running = int(running_B.sum())
            if running == 0 or step + 1 == sampling.max_tokens:
                break
            if running < COMPACT_BELOW * len(live):
                keep = running_B.nonzero()[:, 0]
                live, token_B, position_B1 = live[keep], token_B[keep], position_B1[keep]
                mask_BL = None if mask_BL is None else mask_BL[keep]
                cache.batch_select_indices(keep)
            if mask_BL is not None:
                mask_BL = torch.cat([mask_BL, mask_BL.new_ones((len(live), 1))], dim=1)
            logits_BV = self._forward(token_B[:, None], mask_BL, position_B1, cache)
            position_B1 = position_B1 + 1
        ends = lengths_B.tolist()
        pairs = zip(tokens_BT.tolist(), logprobs_BT.tolist(), ends, strict=True)
        return [Completion(tokens[:end], logprobs[:end]) for tokens, logprobs, end in pairs]

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Cache, Tensor | None]:
        """Logits after each prompt, the cache, and the mask of its padding on the left; None where no prompt needs any."""
        width = max(map(len, prompts))
        ids_BL = torch.tensor([[self.pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=self.model.device)
        mask_BL = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=self.model.device)
        position_BL = (mask_BL.cumsum(-1) - 1).clamp(min=0)
        cache = Cache(layer_class_to_replicate=RoomyLayer)
        padded = None if min(map(len, prompts)) == width else mask_BL
        return self._forward(ids_BL, padded, position_BL, cache), cache, padded

    def _forward(self, ids: Tensor, mask: Tensor | None, positions: Tensor, cache: Cache) -> Tensor:
        output = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        logits_BV: Tensor = output.logits[:, -1]
        return logits_BV


def choose(logprobs_BV: Tensor, draws_B: Tensor, sampling: Sampling) -> Tensor:
    """The next token of each row: the likeliest at temperature 0, else by inverting the distribution function at draws_B (in [0, 1))."""
    if sampling.temperature == 0:
        return logprobs_BV.argmax(-1)
    probs_BV = torch.softmax(logprobs_BV / sampling.temperature, dim=-1)
    order_BV = None
    if sampling.top_p < 1:
        probs_BV, order_BV = probs_BV.sort(dim=-1, descending=True, stable=True)
        before_BV = probs_BV.cumsum(-1) - probs_BV
        probs_BV = probs_BV.where(before_BV < sampling.top_p, 0.0)  # the first always stays
    sums_BV = probs_BV.double().cumsum(-1)
    chosen_B1 = torch.searchsorted(sums_BV, draws_B[:, None] * sums_BV[:, -1:], right=True).clamp(max=probs_BV.shape[1] - 1)
    return (chosen_B1 if order_BV is None else order_BV.gather(1, chosen_B1))[:, 0]


def guided(logprobs_BV: Tensor, states: Sequence[GuideState]) -> Tensor:
    """The same with -inf wherever the rule of a row's state says no."""
    closed_BV = torch.zeros(logprobs_BV.shape, dtype=torch.bool)
    for row, state in zip(closed_BV, states, strict=True):
        rule = state.rule()
        if rule.only:
            row.fill_(True)
        row[rule.ids] = not rule.only
    return logprobs_BV.masked_fill(closed_BV.to(logprobs_BV.device), -torch.inf)


def _draws(rows: list[tuple[int, int]], sampling: Sampling) -> Tensor:
    """float64 [rows, max_tokens] in [0, 1): one stream of numbers a row, whatever batch it falls in."""
    if sampling.temperature == 0:
        return torch.zeros((len(rows), sampling.max_tokens), dtype=torch.float64)
    return torch.from_numpy(
        np.stack([np.random.default_rng([sampling.seed, prompt, sample]).random(sampling.max_tokens) for prompt, sample in rows])
    )
