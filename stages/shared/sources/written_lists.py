"""Lists that stand in a text as Python, JSON or numpy writes them: what pandas leaves in a CSV cell of a column of lists."""

import ast
import re
import warnings
from typing import Any

import orjson

BRACKETED = r"(?s)^(\[.*\]|\{.*\})$"
_QUOTED = r"'[^']*'|\"[^\"]*\""
_SIDE_BY_SIDE = re.compile(r"['\"]\s+['\"]")  # numpy puts no commas; to Python the texts would be one
_NUMBERS_SIDE_BY_SIDE = re.compile(r"\[\s*-?\d+(\s+-?\d+)*\s*\]")
_LONGEST_LITERAL = 2**20  # bytes: Python's parser takes about a thousand times as much memory


def written_list(text: str) -> Any:
    """The list (or object) that `text` writes out; None where it is no such thing, as `[untitled]`."""
    text = text.strip()
    if not re.match(BRACKETED, text):
        return None
    if _SIDE_BY_SIDE.search(text) and "{" not in text:
        return [quoted[1:-1] for quoted in re.findall(_QUOTED, text)]
    if _NUMBERS_SIDE_BY_SIDE.fullmatch(text):
        return [int(number) for number in text[1:-1].split()]
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = literal(text)
    if isinstance(value, tuple | set):
        return list(value)
    return value if isinstance(value, list | dict) else None


def literal(line: str) -> Any:
    """The value, or None where `line` is no Python literal. literal_eval builds values only, it never runs anything."""
    if len(line) > _LONGEST_LITERAL:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes that Python does not know
            return ast.literal_eval(line)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
