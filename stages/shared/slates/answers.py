"""Reads the model's answer from token ids, never from decoded text: decoding may drop special tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from stages.shared.slates.prompts import END, LETTERS, RELEVANCE_LEVELS, THINK_END
from stages.shared.slates.sids import SID_BEGIN, SID_END


@dataclass(frozen=True)
class Answer:
    """order: incoming ranks, best first, when the answer is a permutation of the slate; else None.

    fault: "" | "unfinished" (no end) | "malformed" (not a list of SIDs) | "outside" (a SID not in the slate) | "duplicate" | "missing".
    """

    order: tuple[int, ...] | None
    fault: str

    @property
    def valid(self) -> bool:
        return self.order is not None


class AnswerReader:
    """Knows the token ids of the layout of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (SID_BEGIN, SID_END, THINK_END, END)}
        leads = [f" s{relevance}{letter}" for relevance in range(RELEVANCE_LEVELS) for letter in LETTERS]
        self.leads = {tuple(ids) for ids in tokenizer(leads, add_special_tokens=False)["input_ids"]}
        self.begin, self.close, self.think_end, self.end = (ids[token] for token in (SID_BEGIN, SID_END, THINK_END, END))

    def read(self, completion: Sequence[int], candidates: Sequence[Sequence[int]], reasoning: bool = True) -> Answer:
        """completion: generated ids. candidates: token ids of each candidate's SID (begin and end included), in incoming order."""
        ids = list(completion)
        # A completion that was cut at max_tokens has no end token: no partial credit, or running on would pay.
        if self.end not in ids:
            return Answer(None, "unfinished")
        ids = ids[: ids.index(self.end)]
        if reasoning:
            if self.think_end not in ids:
                return Answer(None, "malformed")
            ids = ids[ids.index(self.think_end) + 1 :]
        ranks = {tuple(candidate): rank for rank, candidate in enumerate(candidates)}
        order: list[int] = []
        while ids:
            # After reasoning each SID may be led by its relevance and letter, which are skipped; anything else is malformed.
            if reasoning and self.begin in ids and tuple(ids[: ids.index(self.begin)]) in self.leads:
                ids = ids[ids.index(self.begin) :]
            if ids[0] != self.begin or self.close not in ids:
                return Answer(None, "malformed")
            stop = ids.index(self.close) + 1
            rank = ranks.get(tuple(ids[:stop]))
            if rank is None:
                return Answer(None, "outside")
            order.append(rank)
            ids = ids[stop:]
        if len(set(order)) < len(order):
            return Answer(None, "duplicate")
        if len(order) < len(candidates):
            return Answer(None, "missing")
        return Answer(tuple(order), "")
