"""What every token of a tokenizer adds to a text, for constraints that are about text: any vocabulary, any way of splitting words."""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from stages.shared.slates.sids import SID_BEGIN, SID_END

_SYMBOLS = 0xF0000  # of a private use area: the tokens of SIDs, which must not be spelled letter by letter
_SID_TOKEN = re.compile(rf"{re.escape(SID_BEGIN)}|{re.escape(SID_END)}|<s_[a-z]_\d+>")


class TokenTexts:
    """texts: by token id; "" for tokens that no text may hold (marks, padding). A token of SIDs is one symbol."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        added = {number: token for token, number in tokenizer.get_added_vocab().items()}
        sid_tokens = sorted(number for number, token in added.items() if _SID_TOKEN.fullmatch(token))
        self.symbols = {added[number]: chr(_SYMBOLS + place) for place, number in enumerate(sid_tokens)}
        # After another token, because some tokenizers leave out the space that a text begins with.
        anchor = tokenizer.encode("a", add_special_tokens=False)[-1:]
        rows = [anchor, *([*anchor, number] for number in range(len(tokenizer)))]
        [before, *texts] = tokenizer.batch_decode(rows, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        self.texts = [self.symbols.get(added[i], "") if i in added else text[len(before) :] for i, text in enumerate(texts)]

    @cached_property
    def _ordered(self) -> tuple[list[str], dict[str, list[int]]]:
        ids_of: dict[str, list[int]] = {}
        for number, text in enumerate(self.texts):
            if text:
                ids_of.setdefault(text, []).append(number)
        return sorted(ids_of), ids_of

    def ids_of(self, text: str) -> list[int]:
        """The tokens that are exactly `text`."""
        return self._ordered[1].get(text, [])

    def beginning_with(self, text: str) -> Iterator[str]:
        """The texts of tokens that begin with `text`, in order."""
        ordered = self._ordered[0]
        for place in range(bisect_left(ordered, text), len(ordered)):
            if not ordered[place].startswith(text):
                return
            yield ordered[place]

    def symbolised(self, text: str) -> str:
        return _SID_TOKEN.sub(lambda match: self.symbols.get(match[0], match[0]), text)

    def encode(self, symbolised: str) -> list[int]:
        """How the tokenizer itself splits the text."""
        tokens = {symbol: token for token, symbol in self.symbols.items()} if any(c >= chr(_SYMBOLS) for c in symbolised) else {}
        text = "".join(tokens.get(character, character) for character in symbolised)
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def __deepcopy__(self, memo: object) -> "TokenTexts":
        return self  # one a tokenizer, however many constraints are copied


def text_of(texts: Sequence[str], token: int) -> str:
    """A model may have more rows than its tokenizer has tokens: those add nothing."""
    return texts[token] if token < len(texts) else ""
