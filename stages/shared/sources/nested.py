"""Fields of objects within objects, of JSON and Parquet, by their path: `user.id`. A name that stands there as it is comes first."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import polars as pl


class NotAnObject(Exception):
    """Something else stands where the path needs an object; the message is what it is."""


def value_at(record: Mapping[str, Any], path: str) -> Any:
    """None where it is missing."""
    if path in record or "." not in path:
        return record.get(path)
    value: Any = record
    for name in path.split("."):
        if value is None:
            return None
        if not isinstance(value, dict):
            raise NotAnObject(f"field {path}: no object before '{name}'")
        value = value.get(name)
    return value


def has_path(record: Mapping[str, Any], path: str) -> bool:
    if path in record:
        return True
    value: Any = record
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return False
        value = value[name]
    return True


def flat(record: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of all that is no object; an empty object is a value."""
    for name, value in record.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def paths_of(schema: Mapping[str, pl.DataType], before: str = "") -> list[str]:
    """Of a Parquet file: all columns, and in place of an object its fields."""
    paths = []
    for name, dtype in schema.items():
        fields = _fields(dtype)
        paths += paths_of(fields, f"{before}{name}.") if fields else [f"{before}{name}"]
    return paths


def _fields(dtype: Any) -> dict[str, Any]:
    """Of an object: name -> dtype; of anything else none."""
    return {field.name: field.dtype for field in dtype.fields} if isinstance(dtype, pl.Struct) else {}


def column_of(path: str, present: Iterable[str]) -> str:
    """The column that holds it."""
    return path if path in present else path.split(".")[0]


def with_paths(rows: pl.DataFrame, paths: Iterable[str]) -> pl.DataFrame:
    """The columns `paths`, each under its path. KeyError with the one that is missing."""
    columns = []
    for path in dict.fromkeys(paths):
        if path in rows.columns:
            columns.append(pl.col(path))
            continue
        name, *fields = path.split(".")
        if name not in rows.columns:
            raise KeyError(path)
        column, known = pl.col(name), _fields(rows.schema[name])
        for field in fields:
            if field not in known:
                raise KeyError(path)
            column, known = column.struct.field(field), _fields(known[field])
        columns.append(column.alias(path))
    return rows.select(columns)
