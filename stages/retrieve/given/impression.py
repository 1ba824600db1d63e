"""One logged slate, whatever file it came from; what cannot be right is refused with a reason."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # of a second
LAST = datetime(2200, 1, 1, tzinfo=UTC).timestamp()  # later is a wrong unit
HIGHEST_GRADE = 10  # gains are 2^grade - 1: more would leave nothing of the other candidates


class Refused(Exception):
    """A row that cannot be right. The text is the reason that counts are kept by."""


@dataclass(frozen=True)
class Impression:
    """Ids are the source's own. candidates: as listed; grades: of each, 0 = not taken; scores, propensities: of each, or None.

    time: whole seconds since 1970, UTC, as in INTERACTIONS.
    """

    user: str
    time: int
    candidates: tuple[str, ...]
    grades: tuple[int, ...]
    scores: tuple[float, ...] | None = None
    propensities: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.user:
            raise Refused("no user")
        if not self.candidates:
            raise Refused("no candidates")
        if "" in self.candidates:
            raise Refused("a candidate without an id")
        if len(set(self.candidates)) < len(self.candidates):
            raise Refused("a candidate stands twice")
        for name, values in (("scores", self.scores), ("propensities", self.propensities)):
            if values is not None and len(values) != len(self.candidates):
                raise Refused(f"{name} and candidates are not equally many")
        if not all(map(math.isfinite, self.scores or ())):
            raise Refused("a score is not a number")
        if not all(0 < value <= 1 for value in self.propensities or ()):
            raise Refused("a propensity is not above 0 and at most 1")


def marked(entries: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Candidates and grades of entries as N1-0 N2-1: behind the last hyphen stands whether it was taken, or its grade."""
    parts = [entry.rpartition("-") for entry in entries]
    if not all(item and mark.isdecimal() for item, _, mark in parts):
        raise Refused("a candidate without -0 or -1 behind it, which say what was taken")
    return tuple(item for item, _, _ in parts), tuple(grade_of(mark) for _, _, mark in parts)


def graded(candidates: Sequence[str], taken: Sequence[str], grades: Sequence[Any] | None) -> tuple[int, ...]:
    """The grade of each candidate; grades: of each of `taken`, None = 1; 0 takes back that it was taken, so `taken` may list all."""
    if len(set(taken)) < len(taken):
        raise Refused("a taken item stands twice")
    if set(taken) - set(candidates):
        raise Refused("a taken item is not among the candidates")
    if grades is not None and len(grades) != len(taken):
        raise Refused("grades and taken items are not equally many")
    given = [grade_of(grade) for grade in grades] if grades is not None else [1] * len(taken)
    of_item = dict(zip(taken, given, strict=True))
    return tuple(of_item.get(item, 0) for item in candidates)


def grade_of(value: Any) -> int:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise Refused("a grade is not a number") from None
    if isinstance(value, bool) or not number.is_integer() or not 0 <= number <= HIGHEST_GRADE:
        raise Refused(f"a grade is not a whole number from 0 to {HIGHEST_GRADE}")
    return int(number)


def id_text(value: Any) -> str:
    """An id as ingest writes it: 7 and 7.0 are one, "007" is another. Empty where there is none."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise Refused("an id is neither text nor a whole number")


def seconds(value: Any, unit: str, form: str = "") -> int:
    """Whole seconds since 1970. Numbers are in `unit`; text is ISO 8601 or a number, or as `form` has it (strptime); without a time zone it
    is UTC."""
    if isinstance(value, str):
        value = _from_text(value.strip()) if not form else _by_form(value.strip(), form)
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return math.floor(moment.timestamp())
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Refused("no time, or none that can be read")
    whole = value // UNITS[unit]
    if not -LAST < whole < LAST:
        raise Refused("a time that no log has: another retrieve.given.time_unit?")
    return int(whole)


def _by_form(text: str, form: str) -> datetime:
    try:
        return datetime.strptime(text, form)
    except ValueError:
        raise Refused("a time that is not as retrieve.given.time_format has it") from None


def _from_text(text: str) -> int | float | datetime:
    readers: tuple[Callable[[str], int | float | datetime], ...] = (int, float, datetime.fromisoformat)
    for read in readers:
        try:
            return read(text)
        except ValueError:
            continue
    raise Refused("no time, or none that can be read")
