"""One JSON object a line -> columns. The lines of a block are parsed one by one; only the fields that are wanted stay in memory."""

import json
from collections.abc import Callable
from typing import Any

import orjson
import polars as pl

from stages.ingest.readers.chunks import Input, Lines
from stages.ingest.readers.raw import TEXT_SHOWN, RawFile
from stages.ingest.readers.validate import nothing_read
from stages.shared.core.errors import StageError
from stages.shared.core.schemas import Schema
from stages.shared.sources.encoding import BOM
from stages.shared.sources.nested import NotAnObject, value_at
from stages.shared.sources.written_lists import literal

INTERACTION_FIELDS: Schema = {"user": pl.String, "item": pl.String, "timestamp": pl.String, "rating": pl.String}
ITEM_FIELDS: Schema = {"source_id": pl.String, "title": pl.String, "year": pl.String, "brand": pl.String, "categories": pl.List(pl.String)}
_REST: Schema = {"row": pl.Int64, "reason": pl.String, "text": pl.String}
NAME_FIELDS = ("name", "description", "title", "label")  # of an object in a list, the first that it has as a text
_KINDS = {bool: "true or false", dict: "an object", list: "a list"}
_EXACT = 2**53  # from here on a float may stand for several integers

Record = dict[str, Any]


class Unusable(Exception):
    """A record lacks what it must have; the message is the reason of its rejection."""


class NotARecord(Unusable):
    """The line is no JSON object at all."""


def read_json_lines(
    source: Input,
    fields: Schema,
    values: Callable[[Record], tuple[Any, ...]],
    take: Callable[[pl.DataFrame], None],
    literals: bool = False,
) -> RawFile:
    """Calls `take` with one frame a block: `fields`, and `row`, `reason`, `text`. `values` makes the fields of a record.

    With `literals` a line may also be a Python literal (a dict as `repr` writes it), as in the metadata of Amazon 2014.
    """
    lines = Lines(source)
    no_fields = (None,) * len(fields)
    empty, has_record, first_fault = True, False, ""
    for part in lines:
        rows = []
        # At \n alone: JSON text may hold U+2028, at which splitlines would cut.
        for row, line in enumerate(part.data.split(b"\n"), part.first_row):
            while line.startswith(BOM):  # also within the file: of a part that was put behind another
                line = line.removeprefix(BOM)
            if not line.strip():
                continue
            fields_of_row, reason = no_fields, None
            try:
                record = _record(line, literals)
                if not has_record and (twice := _key_that_stands_twice(line)):  # every line of a file is made alike
                    raise StageError(f"{lines.name}, row {row}: the key '{twice}' stands twice; rename one of them")
                has_record = True
                fields_of_row = values(record)
            except NotARecord as error:
                reason = str(error)
                first_fault = first_fault or f"row {row}: {_what_it_is(line) or reason}"
            except Unusable as error:
                reason, has_record = str(error), True
            rows.append((*fields_of_row, row, reason, line[: 4 * TEXT_SHOWN].decode(errors="replace")[:TEXT_SHOWN].rstrip("\r")))
        if rows:
            empty = False
            columns = zip([*fields, *_REST], [*fields.values(), *_REST.values()], zip(*rows, strict=True), strict=True)
            take(pl.DataFrame([pl.Series(name, column, dtype) for name, dtype, column in columns]))
    if empty:
        raise nothing_read(lines.name)
    if not has_record:
        raise StageError(f"{lines.name}, {first_fault}; no line of the file is a JSON object, and one a line is expected; convert it")
    return lines.file


def value_of(record: Record, name: str) -> Any:
    """The field, or None; `name` may be a path into objects."""
    try:
        return value_at(record, name)
    except NotAnObject as error:
        raise Unusable(str(error)) from None


def required(record: Record, name: str) -> str:
    """The field as text; Unusable where it is missing."""
    if (value := value_of(record, name)) is None:
        raise Unusable(f"missing field {name}")
    return text(value)


def optional(record: Record, name: str) -> str | None:
    """The field as text; None where it is missing. What is neither text nor number stays visible, as JSON, for validation to refuse."""
    if (value := value_of(record, name)) is None:
        return None
    return text(value) or (value if isinstance(value, str) else orjson.dumps(value).decode())


def text(value: Any) -> str:
    """Texts and numbers as text; anything else is empty."""
    if isinstance(value, str):  # a Python literal may hold halves of surrogate pairs, which are no Unicode text
        return value if value.isascii() else value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON has one kind of number: 7 and 7.0 are the same id
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def field(record: Record, name: str) -> str:
    """The field as text, "" where it is missing; Unusable where it is no text, which is another thing than to lack it."""
    value = value_of(record, name) if name else None  # "" is no field, though pandas may write one of that name (its index)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or value == []:
        return ""
    if isinstance(value, bool | dict | list):
        raise Unusable(f"field {name} is {_KINDS[type(value)]} where a text is expected")
    return text(value)


def texts(value: Any) -> list[str]:
    """The texts of a list, or one alone; of a list of lists (paths through a tree of categories) the first; of objects their names."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = value[0]
    entries = value if isinstance(value, list) else [value]
    return [entry for entry in map(_name, entries) if entry]


def _name(value: Any) -> str:
    """As Steam ({"id", "description"}) and TMDB ({"id", "name"}) write genres."""
    if isinstance(value, bool | list):
        raise Unusable(f"categories hold {_KINDS[type(value)]} where a text is expected")
    if not isinstance(value, dict):
        return text(value)
    if (name := next((value[key] for key in NAME_FIELDS if isinstance(value.get(key), str)), None)) is not None:
        return text(name)
    raise Unusable(f"a list holds objects without a field {' or '.join(NAME_FIELDS)}")


def _record(line: bytes, literals: bool) -> Record:
    try:
        record = orjson.loads(line)
        # orjson reads an integer of more than 64 bits as a float, which would make one id of many.
        if isinstance(record, dict) and _has_long_float(record):
            record = json.loads(line)
    except orjson.JSONDecodeError:
        try:
            decoded = line.decode()
        except UnicodeDecodeError:
            raise NotARecord("not UTF-8") from None
        record = literal(decoded.strip()) if literals else None
        if record is None:
            raise NotARecord("not valid JSON") from None
    if not isinstance(record, dict):
        raise NotARecord("not a JSON object")
    return record


def _what_it_is(line: bytes) -> str:
    """Of a line that is no JSON object, where that is another thing by name; "" otherwise."""
    if line.lstrip().startswith(b"["):
        return "a JSON array"
    return "a Python literal, not valid JSON" if literal(line.decode(errors="replace").strip()) is not None else ""


def _has_long_float(record: Record) -> bool:
    """At any depth: an id may stand in an object."""
    return any(
        _has_long_float(value) if isinstance(value, dict) else isinstance(value, float) and abs(value) >= _EXACT
        for value in record.values()
    )


def _key_that_stands_twice(line: bytes) -> str:
    """A key of the object that it has twice, of which a parser silently takes one; "" where there is none, or the line is no JSON."""

    def first_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice.append(next((key for place, key in enumerate(keys) if key in keys[:place]), ""))
        return dict(pairs)

    twice: list[str] = []
    try:
        json.loads(line, object_pairs_hook=first_twice)
    except ValueError:
        return ""
    return twice[-1]  # the outermost object closes last
