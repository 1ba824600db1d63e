"""Requests in the words of the outside world into requests in item numbers: ids, titles, users, histories."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from stages.serve.catalogue import IdCatalogue
from stages.serve.requests import RankRequest

USER = "user:"
ID_LINE = "id:"  # of a document that is written as lines of `key: value`
LARGEST_SCORE = 1e30
FORMS = 'user:ID, or JSON: a list of item ids (the history, oldest first), {"user_id": ID}, or {"history": [ID, ...]}'


class BadRequest(ValueError):
    """What is wrong with a request and what to send instead."""


def rank_request(catalogue: IdCatalogue, query: object, items: Sequence[object], scores: Sequence[float] | None = None) -> RankRequest:
    """query: see FORMS, as text or already read. items: source ids, exact titles, or objects with `id`, `docid` or `text`; unknown ones
    stay in place. BadRequest says what cannot be read."""
    if not items:
        raise BadRequest("nothing to rank: send at least one item")
    check_scores(scores, len(items))
    found = [find(catalogue, name_of(item, place)) for place, item in enumerate(items)]
    history, known = _history(catalogue, query)
    return RankRequest(history, found, scores, known)


def name_of(item: object, place: int, what: str = "item") -> str:
    """The id or title by which a request calls its item at `place`. what: it is called in errors."""
    named: object = item
    if isinstance(item, Mapping):
        named = next((item[key] for key in ("id", "docid", "text") if item.get(key) is not None), None)
    if isinstance(named, bool) or not isinstance(named, str | int):
        raise BadRequest(f"{what} {place} is no id: send a string, a whole number, or an object with `id` or `text`")
    name = str(named)
    if any("\ud800" <= letter <= "\udfff" for letter in name):  # half a character, which no answer could be written with
        raise BadRequest(f"{what} {place} is no text: it holds half of a surrogate pair")
    return name


def find(catalogue: IdCatalogue, name: str) -> int | None:
    """LlamaIndex writes a document with metadata as lines `key: value` before the text, LangChain an object as YAML: there the line `id`
    counts, unless the whole text is an id or a title."""
    found = catalogue.find(name)
    if found is not None:
        return found
    said = next((line.removeprefix(ID_LINE).strip() for line in name.splitlines() if line.startswith(ID_LINE)), "")
    if said[:1] in ("'", '"') and said[-1] == said[0] and len(said) > 1:
        said = said[1:-1]
    return catalogue.find(said) if said else None


def check_scores(scores: object, count: int) -> None:
    """BadRequest unless there are none, or `count` numbers that float32 can hold."""
    if scores is None:
        return
    if not isinstance(scores, Sequence) or len(scores) != count:
        raise BadRequest(f"scores: a list of {count} numbers is expected, one an item, or none at all")
    if not all(isinstance(score, int | float) and abs(score) < LARGEST_SCORE for score in scores):
        raise BadRequest(f"scores: numbers between -{LARGEST_SCORE:g} and {LARGEST_SCORE:g} are expected")


def _history(catalogue: IdCatalogue, query: object) -> tuple[list[int], bool]:
    """The known items of a history, and whether the user, where one is named, is known."""
    read = _read(query)
    if isinstance(read, Mapping):
        if read.get("history") is not None:
            read = read["history"]
        elif read.get("user_id") is not None:
            user: Any = read["user_id"]
            if isinstance(user, bool) or not isinstance(user, str | int):
                raise BadRequest("user_id: a string or a whole number is expected")
            history = catalogue.history(user)
            return history or [], history is not None
    if not isinstance(read, Sequence) or isinstance(read, str):
        raise BadRequest(f"the query says neither who is asking nor what was taken before; send {FORMS}")
    return catalogue.known([name_of(item, place, "history item") for place, item in enumerate(read)]), True


def _read(query: object) -> object:
    if not isinstance(query, str):
        return query
    text = query.strip()
    if text.startswith(USER):
        return {"user_id": text.removeprefix(USER).strip()}
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadRequest(f"the query cannot be read; send {FORMS}") from None
