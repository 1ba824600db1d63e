"""Reads an answer that is one JSON object, {"explanation": "...", "recommendations": [names]}, from token ids."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from stages.shared.slates.answers import Answer, answer_part, complete


@dataclass(frozen=True)
class JsonAnswerReader:
    tokenizer: PreTrainedTokenizerBase
    think_end: int
    end: int

    def read(self, completion: Sequence[int], names: Sequence[Sequence[int]], reasoning: bool = True) -> Answer:
        """See AnswerReader.read; what is no such object, or has anything around it, is malformed."""
        ids = answer_part(completion, self.end, self.think_end if reasoning else None)
        if isinstance(ids, Answer):
            return ids
        return read_json_answer(self._text(ids), [self._text(name) for name in names])

    def _text(self, ids: Sequence[int]) -> str:
        # Marks are kept: a name is made of them.
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def read_json_answer(text: str, names: Sequence[str]) -> Answer:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return Answer(None, "malformed")
    if not isinstance(found, dict) or set(found) != {"explanation", "recommendations"} or not isinstance(found["explanation"], str):
        return Answer(None, "malformed")
    said = found["recommendations"]
    if not isinstance(said, list) or not all(isinstance(name, str) for name in said):
        return Answer(None, "malformed")
    said, known = [name.strip() for name in said], [name.strip() for name in names]
    if not set(said) <= set(known):
        return Answer(None, "outside")
    return complete(said, known)
