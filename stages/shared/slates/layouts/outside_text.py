"""Titles and categories inside a chat prompt: text from outside, which must stay a quoted string whatever it says."""

import json
import re
import unicodedata

# Special tokens open with `<` (<|im_end|>, <s_a_1>, </think>) or stand in square brackets ([INST]); `ingest` cleans them away too, and a
# prompt must not depend on where its catalogue came from.
_FOLDED = {"‹": "<＜﹤≮", "›": ">＞﹥≯", "(": "[［﹇", ")": "]］﹈"}
_HARMLESS = str.maketrans({character: harmless for harmless, characters in _FOLDED.items() for character in characters})
TITLE_CHARACTERS = 160  # of a title in the prompt at most, whatever the budget: one of 10,000 would be most of a slate
QUOTED = r'"(?:[^"\\]|\\.)*"'  # a JSON string, for regular expressions
_QUOTED = re.compile(QUOTED)


def quoted(text: str, characters: int) -> str:
    """`text` as a JSON string of one line, of at most so many characters before escapes; an ellipsis marks a cut."""
    # A lone surrogate has no UTF-8 form, and a tokenizer would fail on it.
    text = text[: 4 * characters + 100].encode("utf-8", "replace").decode("utf-8")
    text = "".join(" " if character.isspace() else character for character in text)
    text = "".join(character for character in text if not unicodedata.category(character).startswith("C"))
    text = " ".join(text.translate(_HARMLESS).split())
    return json.dumps(text if len(text) <= characters else text[: max(0, characters - 1)].rstrip() + "…", ensure_ascii=False)


def unquoted(text: str) -> str:
    """The text inside a JSON string."""
    return str(json.loads(text))


def strings_in(text: str) -> list[str]:
    """Every JSON string in `text`, with its quotes."""
    return _QUOTED.findall(text)


def without_strings(text: str) -> str:
    """`text` with every JSON string taken out: what the layout itself, or a model, says."""
    return _QUOTED.sub('""', text)
