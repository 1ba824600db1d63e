"""What is asked of a reranker and what comes back, whoever asks: a file or a client of the server."""

from collections.abc import Sequence
from dataclasses import dataclass, field

REASONING, ONE_PASS = "reasoning", "one-pass"  # ways in which a model ranks

# Why the incoming order came back instead of a new one.
NO_HISTORY = "no_history"  # nothing that the catalogue knows was taken before
UNKNOWN_USER = "unknown_user"
UNKNOWN_ITEMS = "unknown_items"  # the catalogue knows none of them
NO_SCORES = "no_scores"  # the request brings none, and the run's retriever keeps nothing that scores single candidates
INVALID_ANSWER = "invalid_answer"
ENGINE = "engine"
ENGINE_GONE = "engine_gone"  # its process has ended, and the next one is not up yet
TIME_BUDGET = "time_budget"
FALLBACKS = (NO_HISTORY, UNKNOWN_USER, UNKNOWN_ITEMS, NO_SCORES, INVALID_ANSWER, ENGINE, ENGINE_GONE, TIME_BUDGET)


@dataclass(frozen=True)
class RankRequest:
    """history: items of the catalogue, oldest first. items: in the incoming order, None = not in the catalogue; one may come twice.

    scores: the retriever's, one an item; None = those of the run's own retriever. known_user: false where one was named whom nobody knows.
    """

    history: Sequence[int]
    items: Sequence[int | None]
    scores: Sequence[float] | None = None
    known_user: bool = True


@dataclass(frozen=True)
class RankResult:
    """order: every place of the request's items once, best first. scores: of each place in `order`, never rising.

    reasoning: what the model wrote before its answer. relevances: place -> the level (0 to 23) that it gave there. fallback: one of
    FALLBACKS where `order` is the incoming order, else "". fault: of an invalid answer (stages/shared/slates/answers.py). tokens: written.
    way: in which the model was asked, "" where it was not.
    """

    order: tuple[int, ...]
    scores: tuple[float, ...]
    reasoning: str = ""
    relevances: dict[int, int] = field(default_factory=dict)
    fallback: str = ""
    fault: str = ""
    tokens: int = 0
    way: str = ""


def fallback(count: int, reason: str, fault: str = "", reasoning: str = "", tokens: int = 0, way: str = "") -> RankResult:
    """The incoming order of `count` items, whole."""
    return RankResult(tuple(range(count)), falling(count), reasoning, {}, reason, fault, tokens, way)


def falling(count: int) -> tuple[float, ...]:
    """Scores that say the order and nothing else: 1, then less by 1 / count at each place."""
    return tuple((count - place) / count for place in range(count))


def places_of(items: Sequence[int | None]) -> dict[int, list[int]]:
    """Item -> its places, by first place; without the unknown ones."""
    places: dict[int, list[int]] = {}
    for place, item in enumerate(items):
        if item is not None:
            places.setdefault(item, []).append(place)
    return places


def spread(items: Sequence[int | None], ranked: Sequence[int]) -> tuple[int, ...]:
    """The places of `items`, in the order of `ranked`: duplicates beside their first, unknown ones last as they came. What `ranked` holds
    and nobody asked for is left out."""
    places = places_of(items)
    unknown = [place for place, item in enumerate(items) if item is None]
    return (*(place for item in ranked for place in places.get(item, ())), *unknown)
