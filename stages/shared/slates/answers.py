"""Reads the model's answer from token ids, never from decoded text: decoding may drop special tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Answer:
    """order: ranks as shown, best first, when the answer is a permutation of the slate; else None.

    fault: "" | "unfinished" (no end) | "malformed" (not a list of names) | "outside" (a name not in the slate) | "duplicate" | "missing".
    """

    order: tuple[int, ...] | None
    fault: str

    @property
    def valid(self) -> bool:
        return self.order is not None


class Reader(Protocol):
    """Of one tokenizer and one form of answers."""

    @property
    def think_end(self) -> int:
        """The token that closes a think block."""
        ...

    def read(self, completion: Sequence[int], names: Sequence[Sequence[int]], reasoning: bool = True) -> Answer:
        """completion: generated ids. names: token ids of what names each candidate, in the order shown."""
        ...


@dataclass(frozen=True)
class AnswerReader:
    """Knows the token ids of the marks of one tokenizer. letters: the ids of single letters, whichever of them a slate uses."""

    begin: int
    close: int
    think_end: int
    end: int
    letters: frozenset[int]

    def read(self, completion: Sequence[int], names: Sequence[Sequence[int]], reasoning: bool = True) -> Answer:
        """See Reader."""
        ids = answer_part(completion, self.end, self.think_end if reasoning else None)
        if isinstance(ids, Answer):
            return ids
        ranks = {tuple(name): rank for rank, name in enumerate(names)}
        order: list[int] = []
        while ids:
            name = self._first_name(ids, ranks)
            if not name:
                return Answer(None, "malformed")
            if name not in ranks:
                return Answer(None, "outside")
            order.append(ranks[name])
            ids = ids[len(name) :]
        return complete(order, len(names))

    def _first_name(self, ids: Sequence[int], ranks: dict[tuple[int, ...], int]) -> tuple[int, ...]:
        """The name that `ids` begin with, of this slate or another; () where there is none."""
        # Names of the slate first: in a pretrained vocabulary a letter may take several tokens. None is the beginning of another.
        for name in ranks:
            if tuple(ids[: len(name)]) == name:
                return name
        if ids[0] in self.letters:
            return (ids[0],)
        if ids[0] == self.begin and self.close in ids:
            return tuple(ids[: ids.index(self.close) + 1])
        return ()


def answer_part(completion: Sequence[int], end: int, think_end: int | None) -> list[int] | Answer:
    """The ids between the think block and the end; the fault of a completion that has no such part. think_end: None without reasoning."""
    ids = list(completion)
    # A completion that was cut at max_tokens has no end token: no partial credit, or running on would pay.
    if end not in ids:
        return Answer(None, "unfinished")
    ids = ids[: ids.index(end)]
    if think_end is None:
        return ids
    return ids[ids.index(think_end) + 1 :] if think_end in ids else Answer(None, "malformed")


def complete(order: Sequence[int], candidates: int) -> Answer:
    """The answer that names the candidates of these ranks; a fault unless it names each once."""
    if len(set(order)) < len(order):
        return Answer(None, "duplicate")
    return Answer(tuple(order), "") if len(order) == candidates else Answer(None, "missing")
