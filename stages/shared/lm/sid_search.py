"""The next SID by beam search over the SIDs that exist, asked of a language model.

A prompt is what mid-training saw of a user, `<|user|>history:` and SIDs, and the beginning of one more SID. An item's score is the sum
over its codes of log p(code | history, codes before), p made to sum to 1 over the codes that the trie allows there.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from stages.shared.core.errors import StageError
from stages.shared.core.progress import tracked
from stages.shared.recsys.ragged import flatten
from stages.shared.slates.layouts.marks import USER
from stages.shared.slates.sids import sid_vocabulary
from stages.shared.slates.trie import SidTrie

# Shapes: B histories, T tokens, W prefixes in the beam, C codes of a level, K items asked for.


class SidSearch:
    """codes_NL: int [items, levels], the codes of each item, which `trie` leads to."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        codes_NL: np.ndarray,
        trie: SidTrie,
        beam: int,
        history: int,
        batch_size: int,
    ):
        self.model, self.trie, self.codes_NL = model, trie, codes_NL
        self.beam, self.history, self.batch_size = beam, history, batch_size
        self.before_last_N = trie.walk(codes_NL[:, :-1])  # the node from which an item's last code leads to it
        self.opening = tokenizer(f"{USER}history:", add_special_tokens=False)["input_ids"]
        self.pad = tokenizer.pad_token_id
        self.begin, self.end, *codes = _token_ids(tokenizer, sid_vocabulary(trie.levels, trie.codebook_size))
        self.tokens_LC = np.array(codes).reshape(trie.levels, trie.codebook_size)
        self._check_room()

    def top_k(self, histories: Sequence[Sequence[int]], seen: Sequence[Sequence[int]], k: int) -> tuple[np.ndarray, np.ndarray]:
        items = np.zeros((len(histories), k), dtype=np.int32)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        order = np.argsort([len(history) for history in histories], kind="stable")  # prompts of like length need little padding
        for start in tracked(range(0, len(order), self.batch_size), "batches of beams", unit="batch"):
            rows = order[start : start + self.batch_size]
            prompts = [self.prompt(histories[row]) for row in rows]
            items[rows], scores[rows] = self._search(prompts, [seen[row] for row in rows], k)
        return items, scores

    @torch.no_grad()
    def free(self, histories: Sequence[Sequence[int]]) -> np.ndarray:
        """What the model writes by itself, the likeliest token of its whole vocabulary at each place, where the next SID is due: int [B]
        the item, -1 for a SID that no item has, -2 for what is no SID."""
        items = np.full(len(histories), -2)
        for start in tracked(range(0, len(histories), self.batch_size), "batches of free SIDs", unit="batch"):
            prompts = [self.prompt(history)[:-1] for history in histories[start : start + self.batch_size]]
            written_BT = self._greedy(prompts, self.trie.levels + 2)
            hits_BLC = written_BT[:, 1:-1, None] == self.tokens_LC[None]
            formed_B = (written_BT[:, 0] == self.begin) & (written_BT[:, -1] == self.end) & hits_BLC.any(-1).all(-1)
            rows = start + np.flatnonzero(formed_B)
            items[rows] = self.trie.item(hits_BLC.argmax(-1)[formed_B])
        return items

    def _greedy(self, prompts: list[list[int]], length: int) -> np.ndarray:
        """[B, length] token ids."""
        device, width = self.model.device, max(map(len, prompts))
        ids_BT = torch.tensor([[self.pad] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
        mask_BT = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
        positions_BT, cache, written = (mask_BT.cumsum(-1) - 1).clamp(min=0), DynamicCache(), []
        for _ in range(length):
            ids_BT = self._forward(ids_BT, mask_BT, positions_BT, cache, 1).argmax(-1)
            written.append(ids_BT)
            mask_BT = torch.cat([mask_BT, torch.ones_like(ids_BT)], dim=1)
            positions_BT = positions_BT[:, -1:] + 1
        return torch.cat(written, dim=1).cpu().numpy()

    def save(self, folder: Path) -> None:
        """Nothing: its weights lie in data/midtrain/model."""

    def prompt(self, history: Sequence[int]) -> list[int]:
        ids = list(self.opening)
        for item in history[-self.history :]:
            ids += [self.begin, *self.tokens_LC[np.arange(self.trie.levels), self.codes_NL[item]].tolist(), self.end]
        return [*ids, self.begin]

    @torch.no_grad()
    def _search(self, prompts: list[list[int]], seen: Sequence[Sequence[int]], k: int) -> tuple[np.ndarray, np.ndarray]:
        """([B, K] items, [B, K] scores, -inf where the beam found no more)."""
        device, count, width = self.model.device, len(prompts), max(map(len, prompts))
        ids_BT = torch.tensor([[self.pad] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
        mask_BT = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
        cache = DynamicCache()
        logits = self._forward(ids_BT, mask_BT, (mask_BT.cumsum(-1) - 1).clamp(min=0), cache, 1)
        sees_BWT = mask_BT[:, None, :].bool()  # what of the cache each prefix attends to: its prompt, and later its own codes
        next_B1 = mask_BT.sum(-1, keepdim=True)

        tokens_LC = torch.from_numpy(self.tokens_LC).to(device)
        nodes_BW: np.ndarray = np.zeros((count, 1), dtype=np.int64)
        scores_BW = torch.zeros((count, 1), device=device)
        for level in range(self.trie.levels):
            beam, codes = nodes_BW.shape[1], self.trie.codebook_size
            open_BWC = torch.from_numpy(self.trie.allowed(nodes_BW.ravel())).to(device).view(count, beam, codes)
            logits_BWC = logits[:, :, tokens_LC[level]].float().masked_fill(~open_BWC, -torch.inf)
            # A dead prefix allows nothing, and its log-softmax is not a number, so there is a second look at what is open.
            scores_BWC = (scores_BW[:, :, None] + logits_BWC.log_softmax(-1)).masked_fill(~open_BWC, -torch.inf)
            last = level == self.trie.levels - 1
            if last:
                self._close_seen(scores_BWC, nodes_BW, seen)
            best = scores_BWC.flatten(1).topk(min(k if last else self.beam, beam * codes), dim=1)
            scores_BW, parents_BW, codes_BW = best.values, best.indices // codes, best.indices % codes
            from_BW = np.take_along_axis(nodes_BW, parents_BW.cpu().numpy(), axis=1)
            nodes_BW = self.trie.step(from_BW.ravel(), codes_BW.cpu().numpy().ravel()).reshape(from_BW.shape)
            if not last:
                # All prefixes of a history are tokens of one row, separated by the mask: its prompt lies in the cache once.
                width = parents_BW.shape[1]
                inherited_BWT = sees_BWT.gather(1, parents_BW[:, :, None].expand(-1, -1, sees_BWT.shape[2]))
                itself_BWW = torch.eye(width, dtype=torch.bool, device=device).expand(count, -1, -1)
                sees_BWT = torch.cat([inherited_BWT, itself_BWW], dim=2)
                bias_BWT = torch.zeros(sees_BWT.shape, device=device, dtype=self.model.dtype)
                bias_BWT.masked_fill_(~sees_BWT, torch.finfo(bias_BWT.dtype).min)
                logits = self._forward(tokens_LC[level][codes_BW], bias_BWT[:, None], (next_B1 + level).expand(-1, width), cache, width)

        count_found = nodes_BW.shape[1]
        items_BK, scores_BK = np.zeros((count, k), dtype=np.int32), np.full((count, k), -np.inf, dtype=np.float32)
        items_BK[:, :count_found] = self.trie.items[np.maximum(nodes_BW - self.trie.first_leaf, 0)]
        scores_BK[:, :count_found] = scores_BW.cpu().numpy()
        return items_BK, scores_BK

    def _close_seen(self, scores_BWC: Tensor, nodes_BW: np.ndarray, seen: Sequence[Sequence[int]]) -> None:
        """Puts the last codes of items in `seen` at -inf, wherever a prefix of the beam leads to them."""
        rows_S, _, items_S = flatten(seen)
        at_S, beams_S = np.nonzero(nodes_BW[rows_S] == self.before_last_N[items_S][:, None])
        place = (rows_S[at_S], beams_S, self.codes_NL[items_S[at_S], -1].astype(np.int64))
        scores_BWC[tuple(torch.from_numpy(part).to(scores_BWC.device) for part in place)] = -torch.inf

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache, keep: int) -> Tensor:
        """The logits after the last `keep` tokens of each row, [B, keep, vocabulary]."""
        output = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=keep
        )
        return output.logits

    def _check_room(self) -> None:
        room = getattr(self.model.config, "max_position_embeddings", None)
        needed = len(self.opening) + self.history * (self.trie.levels + 2) + self.trie.levels
        if room is not None and needed > room:
            raise StageError(
                f"a history of {self.history} items needs {needed} tokens and the model has {room} positions; "
                "lower retrieve.language_model.history"
            )


def _token_ids(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> list[int]:
    vocabulary = tokenizer.get_vocab()
    if missing := [token for token in tokens if token not in vocabulary]:
        raise StageError(f"data/midtrain/model: its vocabulary lacks {missing[0]}, so it learnt other SIDs; rerun: gr2 run midtrain")
    return [vocabulary[token] for token in tokens]
