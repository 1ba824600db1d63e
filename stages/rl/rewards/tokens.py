"""Rewards of token ids."""

from collections.abc import Sequence


def grounding(completion: Sequence[int], quotes: Sequence[Sequence[int]], think_end: int) -> float:
    """Share of the candidates whose facts the think block quotes word by word. quotes: the token ids of each candidate's.

    0 where the block is not closed: what was never said cannot be grounded.
    """
    if think_end not in completion or not quotes:
        return 0.0
    thought = list(completion[: completion.index(think_end)])
    return sum(_contains(thought, quote) for quote in quotes) / len(quotes)


def _contains(tokens: Sequence[int], part: Sequence[int]) -> bool:
    wanted = list(part)
    return any(tokens[start : start + len(wanted)] == wanted for start in range(len(tokens) - len(wanted) + 1))


def overlong(length: int, longest: int, buffer: int) -> float:
    """0 up to longest - buffer tokens, then falling to -1 at the longest (DAPO, arXiv 2503.14476, eq. 13)."""
    free = longest - buffer
    return 0.0 if length <= free else max(-1.0, (free - length) / buffer)


def brevity(length: int, longest: int) -> float:
    """1 for an empty answer, 0 for the longest."""
    return 1 - length / longest
