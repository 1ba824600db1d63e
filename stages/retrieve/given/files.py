"""Logged slates as Parquet, JSON lines, CSV or TSV, one row a slate or a shown item, the last three perhaps gzipped."""

import csv
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl

from stages.retrieve.given.impression import Impression, Refused, graded, id_text, marked, seconds
from stages.retrieve.given.item_rows import whole_lists
from stages.retrieve.params import GivenParams
from stages.shared.core.errors import StageError
from stages.shared.sources.encoding import UTF8, as_utf8, shown, unpacked
from stages.shared.sources.first_bytes import is_parquet
from stages.shared.sources.nested import NotAnObject, column_of, paths_of, value_at, with_paths
from stages.shared.sources.written_lists import written_list

_JSON = (".jsonl", ".ndjson", ".json")
SUFFIXES = (".parquet", *_JSON, ".csv", ".tsv")

# File, row (from 1; the line of a text file), and the slate or why there is none. Not the row's text: it may name a user who is to be
# forgotten.
Row: TypeAlias = tuple[str, int, Impression | Refused]


def logged_files(path: Path, suffixes: Sequence[str]) -> list[Path]:
    """`path`, or where it is a folder every file in it, at any depth, whose name ends in one of `suffixes` (or that and .gz), by name."""
    if path.is_dir():
        ends = tuple(suffixes) + tuple(f"{suffix}.gz" for suffix in suffixes)
        found = sorted(file for file in path.rglob("*") if file.is_file() and file.name.lower().endswith(ends))
    else:
        found = [path] if path.is_file() else []
    if not found:
        raise StageError(
            f"retrieve.reads: {path}: no file of logged slates ({', '.join(suffixes)}, or gzipped); name the file or its folder"
        )
    return found


def read_tables(path: Path, params: GivenParams) -> Iterator[Row]:
    """The plain form, by the columns that `params` names."""
    for file in logged_files(path, SUFFIXES):
        if params.slate:
            yield from ((file.name, *numbered) for numbered in whole_lists(_rows(file, params), params))
            continue
        for number, row in _rows(file, params):
            try:
                yield file.name, number, _impression(row, params)
            except Refused as reason:
                yield file.name, number, reason


def _impression(row: dict[str, Any] | None, params: GivenParams) -> Impression:
    if row is None:
        raise Refused("not a JSON object")
    candidates = _ids(row.get(params.candidates), params)
    if params.taken:
        grades = _list(row.get(params.grades), params) if params.grades else None
        grade_of_each = graded(candidates, _ids(row.get(params.taken), params), grades)
    else:
        candidates, grade_of_each = marked(candidates)
    return Impression(
        user=id_text(row.get(params.user)),
        time=seconds(row.get(params.time), params.time_unit, params.time_format),
        candidates=candidates,
        grades=grade_of_each,
        scores=_numbers(row.get(params.scores), params) if params.scores else None,
        propensities=_numbers(row.get(params.propensities), params) if params.propensities else None,
    )


def _list(value: Any, params: GivenParams) -> list[Any]:
    """A list, also one written out in a text; other text is cut at the separator; one value is a list of one, none an empty one."""
    if value is None:
        return []
    if isinstance(value, str):
        if isinstance(written := written_list(value), list):
            return written
        return [part for part in value.split(params.separator) if part.strip()]
    return value if isinstance(value, list) else [value]


def _ids(value: Any, params: GivenParams) -> tuple[str, ...]:
    return tuple(map(id_text, _list(value, params)))


def _numbers(value: Any, params: GivenParams) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in _list(value, params))
    except (TypeError, ValueError):
        raise Refused("a score or propensity is not a number") from None


def _rows(file: Path, params: GivenParams) -> Iterator[tuple[int, dict[str, Any] | None]]:
    needed = [params.user, params.time, params.candidates, params.taken, params.slate, params.place]
    needed = list(dict.fromkeys(filter(None, [*needed, params.grades, params.scores, params.propensities])))  # `taken` may list all
    name = file.name.lower().removesuffix(".gz")
    try:
        if name.endswith(".parquet") or is_parquet(file):  # Spark's parts may have no ending
            yield from enumerate(_parquet(file, needed), 1)
        elif name.endswith(_JSON):
            with opened(file) as lines:
                yield from ((number, _object(line, needed)) for number, line in enumerate(lines, 1) if line.strip())
        else:
            with opened(file) as lines:
                table = csv.DictReader(lines, delimiter=params.column_separator or ("\t" if name.endswith(".tsv") else ","))
                require_columns(file, table.fieldnames or [], needed)
                yield from ((table.line_num, row) for row in table)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error, pl.exceptions.PolarsError) as error:
        raise StageError(f"{file}: cannot be read ({error}); it must be UTF-8 text or Parquet, whole, as its name says") from None


def _parquet(file: Path, needed: Sequence[str]) -> Iterator[dict[str, Any]]:
    schema = pl.read_parquet_schema(file)
    require_columns(file, list(dict.fromkeys([*schema, *paths_of(schema)])), needed)
    columns = list(dict.fromkeys(column_of(name, schema) for name in needed))
    for part in with_paths(pl.read_parquet(file, columns=columns, glob=False), needed).iter_slices(50_000):
        yield from part.iter_rows(named=True)


def _object(line: str, needed: Sequence[str]) -> dict[str, Any] | None:
    """The columns `needed` of a line's object; None where it is none, or something else stands where one is needed."""
    try:
        row = json.loads(line)
        return {name: value_at(row, name) for name in needed} if isinstance(row, dict) else None
    except (ValueError, NotAnObject):
        return None


@contextmanager
def opened(file: Path) -> Iterator[Iterator[str]]:
    """Its lines, with their ends; UTF-8, or UTF-16 and UTF-32 with a byte-order mark. Marks are taken off: a file may be several put
    together."""
    with file.open("rb") as plain:
        text = io.TextIOWrapper(as_utf8(unpacked(plain), file.name)[0], encoding="utf-8", newline="")
        yield (line.lstrip("\ufeff") for line in text)


def converted(files: Iterable[tuple[str, Path]]) -> dict[str, str]:
    """files: name and path. Of the text files those in another encoding than UTF-8, by name: which."""
    found = {}
    for name, file in files:
        if not name.endswith(".parquet"):
            with file.open("rb") as plain:
                found[name] = as_utf8(unpacked(plain), name)[1]
    return {name: shown(encoding) for name, encoding in found.items() if encoding != UTF8}


def require_columns(file: Path, found: Sequence[str], needed: Sequence[str]) -> None:
    if missing := [name for name in needed if name not in found]:
        raise StageError(
            f"{file}: no column '{missing[0]}' (found: {', '.join(map(str, found))}); name the columns in retrieve.given, \"\" for none"
        )
    if len(set(found)) < len(found):
        raise StageError(f"{file}: a column name stands twice ({', '.join(map(str, found))}); rename one")
