"""Lists that were logged a row an item: put together by the id of their list, and in order by the item's place."""

from collections.abc import Iterator, Sequence
from typing import Any

from stages.retrieve.given.impression import Impression, Refused, grade_of, id_text, seconds
from stages.retrieve.params import GivenParams
from stages.shared.sources.flags import NO, YES

Record = dict[str, Any]


def whole_lists(rows: Iterator[tuple[int, Record | None]], params: GivenParams) -> Iterator[tuple[int, Impression | Refused]]:
    """Each list with the number of its first row, in the order of these. Rows of a list need not stand together: all are held."""
    lists: dict[str, list[tuple[int, Record]]] = {}
    for number, row in rows:
        try:
            if row is None:
                raise Refused("not a JSON object")
            if not (name := id_text(row.get(params.slate))):
                raise Refused("a row without the id of its list")
            lists.setdefault(name, []).append((number, row))
        except Refused as reason:
            yield number, reason
    for numbered in lists.values():
        first = numbered[0][0]
        try:
            yield first, _impression([row for _, row in numbered], params)
        except Refused as reason:
            yield first, reason


def _impression(rows: Sequence[Record], params: GivenParams) -> Impression:
    users = {id_text(row.get(params.user)) for row in rows}
    if len(users) > 1:
        raise Refused("the rows of a list name several users")
    if params.place:
        places = [_number(row.get(params.place), "a place") for row in rows]
        if len(set(places)) < len(places):
            raise Refused("two items of a list have one place")
        rows = [row for _, row in sorted(zip(places, rows, strict=True), key=lambda pair: pair[0])]
    return Impression(
        user=users.pop(),
        time=min(seconds(row.get(params.time), params.time_unit, params.time_format) for row in rows),
        candidates=tuple(id_text(row.get(params.candidates)) for row in rows),
        grades=tuple(_grade(row, params) for row in rows),
        scores=_numbers(rows, params.scores, "a score"),
        propensities=_numbers(rows, params.propensities, "a propensity"),
    )


def _grade(row: Record, params: GivenParams) -> int:
    """Of the item: what its list's column `taken` says, or of one that was taken its column `grades`."""
    taken = row.get(params.taken)
    word = "" if taken is None else str(taken).strip().lower()
    grade = 0 if word in ("", *NO) else 1 if word in YES else grade_of(taken)
    return grade_of(row.get(params.grades)) if grade and params.grades else grade


def _numbers(rows: Sequence[Record], column: str, what: str) -> tuple[float, ...] | None:
    return tuple(_number(row.get(column), what) for row in rows) if column else None


def _number(value: Any, what: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise Refused(f"{what} is not a number") from None
