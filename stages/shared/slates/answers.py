"""Reads the model's answer from token ids, never from decoded text: decoding may drop special tokens."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
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
        named = {tuple(name) for name in names}
        said: list[tuple[int, ...]] = []
        while ids:
            name = self._first_name(ids, named)
            if not name:
                return Answer(None, "malformed")
            if name not in named:
                return Answer(None, "outside")
            said.append(name)
            ids = ids[len(name) :]
        return complete(said, [tuple(name) for name in names])

    def _first_name(self, ids: Sequence[int], named: set[tuple[int, ...]]) -> tuple[int, ...]:
        """The name that `ids` begin with, of this slate or another; () where there is none."""
        # Names of the slate first: in a pretrained vocabulary a letter may take several tokens. None is the beginning of another.
        for name in named:
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


def ranks_of(said: Sequence[Hashable], names: Sequence[Hashable]) -> list[int]:
    """The candidates that an answer names, all of which are in `names`. Where two items share a SID, the first naming is the first of them
    in the order shown, the second one the second; one more repeats the last."""
    ranks: dict[Hashable, list[int]] = defaultdict(list)
    for rank, name in enumerate(names):
        ranks[name].append(rank)
    times: Counter[Hashable] = Counter()
    order = []
    for name in said:
        order.append(ranks[name][min(times[name], len(ranks[name]) - 1)])
        times[name] += 1
    return order


def complete(said: Sequence[Hashable], names: Sequence[Hashable]) -> Answer:
    """The answer that says these of the slate's names; a fault unless it names each candidate once."""
    order = ranks_of(said, names)
    if len(set(order)) < len(order):
        return Answer(None, "duplicate")
    return Answer(tuple(order), "") if len(order) == len(names) else Answer(None, "missing")
