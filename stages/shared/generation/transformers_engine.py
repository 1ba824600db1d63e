"""Generation with a transformers model in this process: batches decoded side by side, several tokens a pass where they can be guessed.

A guess (ConstraintState.draft) is fed along with the token before it, and kept as far as the model, asked at every place, says the same:
the completion is the one that a token a pass would give, for greedy answers and for drawn ones (speculative decoding, Leviathan, Kalman and
Matias 2023, here with the draw of every place fixed beforehand).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from stages.shared.core.errors import StageError
from stages.shared.core.progress import Progress
from stages.shared.generation.base import Completion, Constraints, Places, Prompts, Sampling
from stages.shared.generation.slot_cache import Slots, slot_cache
from stages.shared.slates.constraint import FREE, ConstraintState, TokenMask

COMPACT_BELOW = 0.75  # of a batch's rows still running: then the rest moves to a smaller batch, at the price of one copy of its cache
PASS = 2.0  # what a pass costs before its first token, in tokens a row: reading the cache, mostly; measured on a CPU


@dataclass
class DecodingRow:
    """One completion in the making. kept: tokens in the cache that stay; last: the one to feed next."""

    kept: int
    last: int
    draws: np.ndarray
    state: ConstraintState | None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    drawn_logprobs: list[float] = field(default_factory=list)
    done: bool = False

    def guess(self) -> list[int]:
        return self.state.draft()[: len(self.draws) - len(self.tokens) - 1] if self.state and not self.done else []

    def masks(self, guess: Sequence[int]) -> list[TokenMask]:
        """At the place after `last` and after each token of the guess."""
        if self.state is None:
            return [FREE] * (len(guess) + 1)
        state = self.state.copy()
        masks = [state.mask()]
        for token in guess:
            state.advance(token)
            masks.append(state.mask())
        return masks

    def take(self, chosen: Sequence[int], logprobs: Sequence[float], drawn: Sequence[float], guess: Sequence[int], end_id: int) -> None:
        """chosen: the model's token at every position of `masks`; they hold up to the first one that was not guessed."""
        for place, token in enumerate(chosen):
            self.tokens.append(token)
            self.logprobs.append(logprobs[place])
            self.drawn_logprobs += drawn[place : place + 1]
            self.kept, self.last = self.kept + 1, token
            if self.state:
                self.state.advance(token)
            self.done = token == end_id or len(self.tokens) == len(self.draws)
            if self.done or place == len(guess) or guess[place] != token:
                break


class TransformersEngine:
    """Holds a reference to `model`: weights trained between two calls are the weights the second one samples from."""

    def __init__(self, model: PreTrainedModel, pad_id: int, end_id: int, batch_size: int = 128):
        self.model, self.pad_id, self.end_id, self.batch_size = model, pad_id, end_id, batch_size

    def generate(
        self, prompts: Prompts, sampling: Sampling, constraints: Constraints = None, places: Places = None
    ) -> list[list[Completion]]:
        """See Engine. What a row draws depends on (seed, prompt's place, sample), not on batch_size, rounding of sums apart.

        StageError where a prompt is empty or leaves no room in the model's positions.
        """
        self._check(prompts, sampling)
        results: dict[tuple[int, int], Completion] = {}
        training = self.model.training
        self.model.train(False)
        with torch.no_grad(), Progress("completions", len(prompts) * sampling.samples, unit="row") as progress:
            for rows in self._batches(prompts, sampling.samples):
                results.update(zip(rows, self._decode(rows, prompts, sampling, constraints, places), strict=True))
                progress.add(len(rows))
        self.model.train(training)
        return [[results[prompt, sample] for sample in range(sampling.samples)] for prompt in range(len(prompts))]

    def load_weights(self, path: Path) -> None:
        """Replaces the weights by those of the safetensors file at `path`, named as in the model's folder."""
        with torch.no_grad(), safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118, no mapping
                self.model.get_parameter(name).copy_(weights.get_tensor(name))

    def sleep(self) -> None:
        """Nothing is freed."""

    def close(self) -> None:
        del self.model

    def _check(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> None:
        for place, prompt in enumerate(prompts):
            if len(prompt) == 0:
                raise StageError(f"prompt {place} is empty; there is nothing to continue")
        room = getattr(self.model.config, "max_position_embeddings", None)
        longest = max(map(len, prompts), default=0)
        need = longest + sampling.max_tokens
        if room is not None and need > room:
            raise StageError(
                f"a prompt of {longest} tokens and max_tokens {sampling.max_tokens} exceed the {room} positions of the model; "
                "show less history (prompt.history), lower max_tokens, or train a model with more positions"
            )
        window = getattr(self.model.config, "sliding_window", None)
        if "sliding_attention" in (getattr(self.model.config, "layer_types", None) or ()) and need > (window or need):
            raise StageError(f"this model sees {window} tokens at once and {need} are needed: set the engine's kind to vllm")

    def _batches(self, prompts: Sequence[Sequence[int]], samples: int) -> Iterator[list[tuple[int, int]]]:
        """(prompt, sample) pairs, longest prompts first: little padding, and memory peaks at once."""
        # Ties by place, so that equal lengths give the same batches, and the same bits, in every run.
        order = sorted(range(len(prompts)), key=lambda prompt: (-len(prompts[prompt]), prompt))
        pairs = [(prompt, sample) for prompt in order for sample in range(samples)]
        for start in range(0, len(pairs), self.batch_size):
            yield pairs[start : start + self.batch_size]

    def _decode(
        self,
        pairs: list[tuple[int, int]],
        prompts: Prompts,
        sampling: Sampling,
        constraints: Constraints,
        places: Places,
    ) -> list[Completion]:
        distinct = list(dict.fromkeys(prompt for prompt, _ in pairs))
        slots = Slots()
        cache = slot_cache(slots)
        self._prefill([prompts[prompt][:-1] for prompt in distinct], slots, cache)
        # Samples of one prompt share its prefill: the cache row is computed once and copied.
        if len(pairs) > len(distinct):
            row_of_prompt = {prompt: number for number, prompt in enumerate(distinct)}
            cache.batch_select_indices(torch.tensor([row_of_prompt[prompt] for prompt, _ in pairs], device=self.model.device))
        rows = [
            DecodingRow(
                len(prompts[prompt]) - 1,
                prompts[prompt][-1],
                _draws(places[prompt] if places else prompt, sample, sampling),
                constraints[prompt].start() if constraints else None,
            )
            for prompt, sample in pairs
        ]
        live = rows
        while not all(row.done for row in live):
            if sum(not row.done for row in live) < COMPACT_BELOW * len(live):
                keep = [number for number, row in enumerate(live) if not row.done]
                live = [live[number] for number in keep]
                cache.batch_select_indices(torch.tensor(keep, device=self.model.device))
            self._pass(live, slots, cache, sampling)
        return [Completion(row.tokens, row.logprobs, drawn_logprobs=row.drawn_logprobs) for row in rows]

    def _prefill(self, prompts: Sequence[Sequence[int]], slots: Slots, cache: Cache) -> None:
        """Fills the cache. Padding is on the right, where no token of the prompt looks, and is overwritten later."""
        width = max(map(len, prompts))
        if width == 0:
            return
        ids_BL = torch.tensor([[*prompt, *[self.pad_id] * (width - len(prompt))] for prompt in prompts], device=self.model.device)
        slots.at_BT, slots.stop = None, width
        self.model(
            input_ids=ids_BL,
            position_ids=torch.arange(width, device=self.model.device).expand(len(prompts), -1),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )

    def _pass(self, live: Sequence[DecodingRow], slots: Slots, cache: Cache, sampling: Sampling) -> None:
        """One pass of the model, by which every row that is not done grows by a token at least."""
        guesses = [row.guess() for row in live]
        width = best_width([len(guess) + 1 for guess, row in zip(guesses, live, strict=True) if not row.done])
        guesses = [guess[: width - 1] for guess in guesses]
        positions = [(line, offset) for line, guess in enumerate(guesses) if not live[line].done for offset in range(len(guess) + 1)]
        logits_BTV = self._forward(live, guesses, width, slots, cache)
        lines, offsets = torch.tensor(positions, device=logits_BTV.device).T
        logprobs_NV = torch.log_softmax(logits_BTV[lines, offsets].float(), dim=-1)
        masks = [mask for row, guess in zip(live, guesses, strict=True) if not row.done for mask in row.masks(guess)]
        draws_N = torch.tensor([live[line].draws[len(live[line].tokens) + offset] for line, offset in positions], dtype=torch.float64)
        open_NV = apply_masks(logprobs_NV, masks)
        chosen_N = choose(open_NV, draws_N.to(logprobs_NV.device), sampling)
        chosen, logprobs = chosen_N.tolist(), logprobs_NV.gather(1, chosen_N[:, None])[:, 0].tolist()
        # A model free to say anything at temperature 1 draws from its own distribution.
        is_own = sampling.temperature == 1 and all(mask is FREE for mask in masks)
        drawn = logprobs if is_own and sampling.top_p == 1 else drawn_logprobs(open_NV, chosen_N, sampling)
        start = 0
        for row, guess in zip(live, guesses, strict=True):
            if not row.done:
                stop = start + len(guess) + 1
                row.take(chosen[start:stop], logprobs[start:stop], drawn[start:stop], guess, self.end_id)
                start = stop

    def _forward(self, live: Sequence[DecodingRow], guesses: Sequence[Sequence[int]], width: int, slots: Slots, cache: Cache) -> Tensor:
        """[B, width, V]: logits after the last token of each row and after each one guessed; anything beyond."""
        device = self.model.device
        fed = [[row.last, *guess] for row, guess in zip(live, guesses, strict=True)]
        ids_BT = torch.tensor([[*tokens, *[self.pad_id] * (width - len(tokens))] for tokens in fed], device=device)
        slots.at_BT = torch.tensor([row.kept for row in live], device=device)[:, None] + torch.arange(width, device=device)
        slots.stop = max(row.kept + len(tokens) for row, tokens in zip(live, fed, strict=True))
        # A token sees every slot up to its own: later ones hold padding, or guesses that were not kept.
        hidden_BTL = torch.arange(slots.stop, device=device) > slots.at_BT[..., None]
        mask_B1TL = torch.zeros(hidden_BTL.shape, dtype=self.model.dtype, device=device).masked_fill(
            hidden_BTL, torch.finfo(self.model.dtype).min
        )[:, None]
        logits_BTV: Tensor = self.model(
            input_ids=ids_BT,
            attention_mask=mask_B1TL,
            position_ids=slots.at_BT.clamp(max=slots.stop - 1),
            past_key_values=cache,
            use_cache=True,
        ).logits
        return logits_BTV


def best_width(lengths: Sequence[int]) -> int:
    """Of rows that could feed so many tokens: how many to feed at most, for most tokens by the cost of a pass, padded to the widest."""
    return max(sorted(set(lengths)), key=lambda width: sum(min(length, width) for length in lengths) / (PASS + width))


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
    # In float32 the sum over a large vocabulary ends visibly off 1; the draws are scaled by the last sum in any case.
    sums_BV = probs_BV.double().cumsum(-1)
    chosen_B1 = torch.searchsorted(sums_BV, draws_B[:, None] * sums_BV[:, -1:], right=True).clamp(max=probs_BV.shape[1] - 1)
    return (chosen_B1 if order_BV is None else order_BV.gather(1, chosen_B1))[:, 0]


def drawn_logprobs(open_NV: Tensor, chosen_N: Tensor, sampling: Sampling) -> list[float]:
    """Of each token, in the distribution of `choose`; [] for greedy answers and with top_p."""
    if sampling.temperature == 0 or sampling.top_p < 1:
        return []
    logprobs_NV = torch.log_softmax(open_NV / sampling.temperature, dim=-1)
    return list(logprobs_NV.gather(1, chosen_N[:, None])[:, 0].tolist())


def apply_masks(logprobs_BV: Tensor, masks: Sequence[TokenMask]) -> Tensor:
    """A copy with -inf at every token that the mask of its row forbids."""
    open_BV = logprobs_BV.clone()
    for allow in (True, False):
        pairs = [(row, token) for row, mask in enumerate(masks) if mask.allow == allow and isinstance(mask.ids, list) for token in mask.ids]
        if not pairs:
            continue
        rows, tokens = torch.tensor(pairs, device=logprobs_BV.device).T
        if allow:
            open_BV[rows] = -torch.inf
            open_BV[rows, tokens] = logprobs_BV[rows, tokens]
        else:
            open_BV[rows, tokens] = -torch.inf
    # Thousands of tokens, always the same ones: an array that rows share goes to the device once, a list of pairs would take milliseconds.
    shared: dict[int, tuple[np.ndarray, list[int]]] = {}
    for row, mask in enumerate(masks):
        if isinstance(mask.ids, np.ndarray):
            shared.setdefault(id(mask.ids), (mask.ids, []))[1].append(row)
    for ids, closed_rows in shared.values():
        at_N1 = torch.tensor(closed_rows, device=logprobs_BV.device)[:, None]
        open_BV[at_N1, torch.from_numpy(ids).to(logprobs_BV.device)] = -torch.inf
    return open_BV


def _draws(place: int, sample: int, sampling: Sampling) -> np.ndarray:
    """float64 [max_tokens] in [0, 1): one stream of numbers a row, whatever batch it falls in."""
    if sampling.temperature == 0:
        return np.zeros(sampling.max_tokens)
    return np.random.default_rng([sampling.seed, place, sample]).random(sampling.max_tokens)
