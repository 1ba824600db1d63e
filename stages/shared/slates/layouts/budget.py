"""Cuts a prompt of the layout `chat` to its budget of tokens: titles first, then history; the candidates and their evidence stay.

It works on the finished dialogue, so the prompts of traces.parquet are cut by the tokenizer of the model that reads them, and training and
decoding cut the same way. A trace cites no title, and counts over the last items only, which a cut leaves (chat_trace.py).
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

from stages.shared.slates.layouts.chat_trace import COUNTED
from stages.shared.slates.layouts.marks import ASSISTANT, USER
from stages.shared.slates.layouts.outside_text import QUOTED, TITLE_CHARACTERS, quoted, unquoted

TITLE_LENGTHS = [80, 50, 30, 20, 12]  # characters; the first that fits is taken
_TITLE = re.compile(rf"(?<= \| )title ({QUOTED})")
_HISTORY = "History:\n"

Measure = Callable[[str], int]


def fitted(prompt: str, measure: Measure, max_tokens: int, cuts: Counter[str]) -> str:
    """`prompt` with at most `max_tokens` by `measure`, if cutting can reach that; what was cut is added to `cuts`.

    Keys of cuts: prompts (those cut), titles, history (items), too_long (prompts that stay above the budget with all of that cut);
    endless_titles (those longer than any prompt shows, TITLE_CHARACTERS, which the layout has cut already).
    """
    if endless := sum(_is_endless(unquoted(match[1])) for match in _TITLE.finditer(prompt.partition(USER)[2])):
        cuts["endless_titles"] += endless
    if not max_tokens or measure(prompt) <= max_tokens:
        return prompt
    cuts["prompts"] += 1
    for length in TITLE_LENGTHS:
        shorter, count = _with_titles(prompt, length)
        if measure(shorter) <= max_tokens:
            cuts["titles"] += count
            return shorter
    cuts["titles"] += count
    lines, place = _history(shorter)
    dropped = 0
    while measure(shorter) > max_tokens and len(lines) - dropped > COUNTED:
        dropped += 1
        shorter = place(lines[dropped:])
    cuts["history"] += dropped
    cuts["too_long"] += measure(shorter) > max_tokens
    return shorter


def _is_endless(title: str) -> bool:
    return title.endswith("…") and len(title) >= TITLE_CHARACTERS - 1  # a space before the ellipsis goes, too


def _with_titles(prompt: str, characters: int) -> tuple[str, int]:
    """The prompt with titles of at most so many characters, and how many of them that cut."""
    count = 0

    def cut(match: re.Match[str]) -> str:
        nonlocal count
        title = unquoted(match[1])
        count += len(title) > characters
        return f"title {quoted(title, characters)}"

    head, mark, user = prompt.partition(USER)  # the instruction holds no titles
    return head + mark + _TITLE.sub(cut, user), count


def _history(prompt: str) -> tuple[list[str], Callable[[Sequence[str]], str]]:
    """The lines of the history's items, and the prompt with others in their place."""
    head, mark, user = prompt.partition(USER)
    before, title, rest = user.partition(_HISTORY)
    if not title:
        return [], lambda lines: prompt
    # The block of the history ends with a blank line, the assistant's turn, or the line of categories.
    end = min(place for place in (rest.find("\n\n"), rest.find(ASSISTANT), rest.find("\nCommonest categories:")) if place >= 0)
    lines = rest[:end].split("\n")
    return lines, lambda kept: head + mark + before + title + "\n".join(kept) + rest[end:]
