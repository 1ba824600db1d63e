"""The one JSON object of an answer, letter by letter: which tokens may come next, whatever the vocabulary.

    {"explanation": "any text", "recommendations": ["A", "C", "B"]}

A cursor is a place in it. All but the explanation is written in one way, so what is left to a model is the explanation and the order.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from stages.shared.slates.token_texts import TokenTexts, text_of

HEAD, MIDDLE, BETWEEN, CLOSE, QUOTE = '{"explanation": "', '", "recommendations": ["', ', "', "]}", '"'
EXPLANATION, NAMES, DONE = "explanation", "names", "done"
REMEMBERED = 20_000  # masks kept: of answers by letter a few thousand serve every slate


class Cursor(NamedTuple):
    """rest: what must be written before `part` is reached; begun: of a name; named: candidates already named."""

    rest: str
    part: str
    begun: str = ""
    named: frozenset[int] = frozenset()


DEAD = Cursor("", "dead")  # where no valid answer leads: reached by free answers only


class JsonGrammar:
    """Shared by all slates of one tokenizer. Names are texts in TokenTexts' symbols, each with the quote that ends it."""

    def __init__(self, tokens: TokenTexts):
        self.tokens = tokens
        self._masks: dict[tuple[Cursor, tuple[str, ...]], list[int]] = {}
        self._drafts: dict[str, list[int]] = {}
        inside = Cursor("", EXPLANATION)
        # No name is reached from inside an explanation by one token: what comes between is longer than any token that holds a quote.
        closed = [number for number, text in enumerate(tokens.texts) if not text or self.read(inside, text, ()) == DEAD]
        self.closed_in_explanation: NDArray[np.int64] = np.array(closed, dtype=np.int64)

    def spelled(self, name: str) -> str:
        return self.tokens.symbolised(name) + QUOTE

    def start(self, before: str = "") -> Cursor:
        return Cursor(before + HEAD, EXPLANATION)

    def advance(self, cursor: Cursor, token: int, names: tuple[str, ...]) -> Cursor:
        return self.read(cursor, text_of(self.tokens.texts, token), names)

    def read(self, cursor: Cursor, text: str, names: tuple[str, ...]) -> Cursor:
        for character in text:
            cursor = self._step(cursor, character, names)
        return cursor

    def allowed(self, cursor: Cursor, names: tuple[str, ...]) -> list[int]:
        """The tokens that may come next, outside the explanation."""
        key = (cursor, names)
        if key not in self._masks:
            if len(self._masks) >= REMEMBERED:
                self._masks.clear()
            found: list[int] = []
            self._search(cursor, "", names, found)
            self._masks[key] = sorted(found)
        return self._masks[key]

    def forced(self, cursor: Cursor, names: tuple[str, ...]) -> list[int]:
        """The tokens of what must come next in any case, as the tokenizer splits it; empty where there is a choice."""
        text = ""
        while len(following := self._following(cursor, names)) == 1:
            [character] = following
            text += character
            cursor = self._step(cursor, character, names)
        if text not in self._drafts:
            self._drafts[text] = self.tokens.encode(text) if text else []
        return self._drafts[text]

    def _step(self, cursor: Cursor, character: str, names: tuple[str, ...]) -> Cursor:
        if cursor.rest:
            return cursor._replace(rest=cursor.rest[1:]) if character == cursor.rest[0] else DEAD
        if cursor.part == EXPLANATION:
            if character == QUOTE:
                return Cursor(MIDDLE[1:], NAMES)
            return DEAD if character == "\\" or character < " " else cursor
        if cursor.part != NAMES:
            return DEAD
        begun = cursor.begun + character
        for rank, name in enumerate(names):
            if rank not in cursor.named and name.startswith(begun):
                if name != begun:
                    return cursor._replace(begun=begun)
                named = cursor.named | {rank}
                return Cursor(CLOSE, DONE) if len(named) == len(names) else Cursor(BETWEEN, NAMES, "", named)
        return DEAD

    def _following(self, cursor: Cursor, names: tuple[str, ...]) -> set[str]:
        """The characters that may come next, outside the explanation."""
        if cursor.rest:
            return {cursor.rest[0]}
        if cursor.part != NAMES:
            return set()
        place = len(cursor.begun)
        return {name[place] for rank, name in enumerate(names) if rank not in cursor.named and name.startswith(cursor.begun)}

    def _search(self, cursor: Cursor, written: str, names: tuple[str, ...], found: list[int]) -> None:
        """Adds the tokens whose text, `written` so far, leads from here to somewhere alive."""
        if written and next(self.tokens.beginning_with(written), None) is None:
            return
        found += self.tokens.ids_of(written)
        if not cursor.rest and cursor.part == EXPLANATION:
            # A token that opens the explanation and begins it.
            for text in self.tokens.beginning_with(written):
                if text != written and self.read(cursor, text[len(written) :], names) != DEAD:
                    found += self.tokens.ids_of(text)
            return
        for character in self._following(cursor, names):
            self._search(self._step(cursor, character, names), written + character, names, found)

    def __deepcopy__(self, memo: object) -> "JsonGrammar":
        return self

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return _load, (self.tokens.tokenizer.name_or_path,)  # in another process it is built again


@lru_cache(maxsize=4)
def grammar_of(tokenizer: PreTrainedTokenizerBase) -> JsonGrammar:
    """One a tokenizer: its tables take about a second."""
    return JsonGrammar(TokenTexts(tokenizer))


def _load(folder: str) -> JsonGrammar:
    return grammar_of(PreTrainedTokenizerFast.from_pretrained(folder, trust_remote_code=False, local_files_only=True))
