"""Columns of a Parquet file of one's own, in batches; ids and texts may have any type that can be written as text."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stages.ingest.readers.jsonlines import NAME_FIELDS
from stages.ingest.readers.raw import RawFile
from stages.ingest.readers.validate import nothing_read
from stages.shared.core.errors import StageError
from stages.shared.sources.nested import column_of, paths_of, with_paths

_BATCH = 2**17  # rows


def read_parquet(
    path: Path, names: dict[str, str], take: Callable[[pl.DataFrame], None], lists: Mapping[str, str] | None = None
) -> RawFile:
    """Calls `take` with one frame a batch: our columns, and `row`, `reason`, `text`. `names`: our column -> that of the file, "" = none.

    `lists`: our columns that may hold lists of ids -> what is put between them in the text that they become.
    """
    row = 1
    for rows in _batches(path, [name for name in names.values() if name], _BATCH):
        columns = {
            our_name: _column(path.name, our_name, rows[name], (lists or {}).get(our_name))
            if name
            else pl.Series(our_name, [None] * len(rows), pl.String)
            for our_name, name in names.items()
        }
        table = pl.DataFrame([column.alias(our_name) for our_name, column in columns.items()])
        flat = [pl.col(our_name).cast(pl.String) for our_name in names if not isinstance(table.schema[our_name], pl.List)]
        take(
            table.with_columns(
                row=pl.int_range(row, row + len(rows), dtype=pl.Int64),
                reason=pl.lit(None, pl.String),
                text=pl.concat_str(flat, separator="\t", ignore_nulls=True),
            )
        )
        row += len(rows)
    if row == 1:
        raise nothing_read(path.name)
    return RawFile.of(path)


def missing_column(file: str, column: str, present: list[str]) -> StageError:
    return StageError(f"{file}: the column '{column}' is missing (found: {', '.join(present)}); name it in ingest.table")


def _batches(path: Path, names: list[str], size: int) -> Iterator[pl.DataFrame]:
    if path.is_dir():
        raise StageError(f"{path}: a folder, not a file; put its parts together, and name that file")
    if not path.is_file():
        raise StageError(f"{path}: no such file; ingest.table must name files in ingest.folder")
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise StageError(f"{path}: not a readable Parquet file ({error})") from None
    with file:
        present = file.schema_arrow.names
        columns = [column_of(name, present) for name in names]
        if twice := [name for name in columns if present.count(name) > 1]:
            raise StageError(f"{path.name}: the column '{twice[0]}' stands twice; rename one of them")
        if absent := [name for name, column in zip(names, columns, strict=True) if column not in present]:
            raise missing_column(path.name, absent[0], present)
        # Each column once: one may serve as two of ours, and pyarrow would return it twice under one name.
        batches = file.iter_batches(size, columns=list(dict.fromkeys(columns)))
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowInvalid, OSError) as error:
                raise StageError(f"{path}: not a readable Parquet file ({error})") from None
            if batch is None:
                return
            _check_text(path.name, batch)
            rows = pl.DataFrame(pl.from_arrow(batch))
            try:
                yield with_paths(rows, names)
            except KeyError as error:
                raise missing_column(path.name, error.args[0], paths_of(rows.schema)) from None


def _name_field(file: str, column: str, dtype: pl.Struct) -> str:
    """The field of an object that holds its name; StageError where it has none."""
    texts = [field.name for field in dtype.fields if field.dtype == pl.String]
    name = next((name for name in NAME_FIELDS if name in texts), None)
    if name is None:
        raise StageError(
            f"{file}: the column '{column}' holds lists of {dtype}, without a text named {' or '.join(NAME_FIELDS)}; convert it"
        )
    return name


def _check_text(file: str, batch: pa.RecordBatch) -> None:
    """StageError for text that is not UTF-8, which neither Arrow nor Polars looks at while reading."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise StageError(f"{file}: the column '{name}' holds text that is not UTF-8 ({error}); convert it") from None


def _column(file: str, our_name: str, column: pl.Series, between: str | None = None) -> pl.Series:
    dtype = column.dtype
    if between is not None and isinstance(dtype, pl.List) and (dtype.inner == pl.String or dtype.inner.is_integer()):
        return column.cast(pl.List(pl.String)).list.join(between)
    if dtype == pl.Null:
        return column.cast(pl.String)
    if our_name == "timestamp" and (dtype.is_numeric() or isinstance(dtype, pl.Datetime | pl.Date)):
        return column.cast(pl.String) if dtype.is_decimal() else column  # as text the digits behind the point stay exact
    if our_name == "rating" and (dtype.is_numeric() or dtype == pl.Boolean):
        return column.cast(pl.Int8) if dtype == pl.Boolean else column
    if our_name == "categories" and isinstance(dtype, pl.List):
        inner = column.list.first() if isinstance(dtype.inner, pl.List) else column
        if isinstance(inner.dtype, pl.List) and isinstance(inner.dtype.inner, pl.Struct):
            inner = inner.list.eval(pl.element().struct.field(_name_field(file, column.name, inner.dtype.inner)))
        entry = inner.dtype.inner if isinstance(inner.dtype, pl.List) else inner.dtype
        if entry.is_nested() or entry in (pl.Boolean, pl.Binary):
            raise StageError(f"{file}: the column '{column.name}' is {dtype}, which cannot serve as categories; convert it")
        return inner.cast(pl.List(pl.String)).fill_null(pl.Series([[]], dtype=pl.List(pl.String)))
    if dtype.is_float() or dtype.is_decimal():
        return _numbers(column)
    if not (dtype.is_numeric() or dtype in (pl.String, pl.Categorical, pl.Enum)):
        raise StageError(f"{file}: the column '{column.name}' is {dtype}, which cannot serve as {our_name}; convert it")
    return column.cast(pl.String)


def _numbers(column: pl.Series) -> pl.Series:
    """Numbers as text, whole ones without a point, as pandas writes them beside missing ones: 7.0 is 7, whatever else a batch holds."""
    number = pl.col(column.name)
    if column.dtype.is_float():
        number = pl.when(number.is_finite()).then(number)
        whole = number.cast(pl.Int64, strict=False)
        # Integers of a Float32 are cut to its 24 bits before they come here; those that fit are exact.
        return column.to_frame().select(pl.when(whole == number).then(whole.cast(pl.String)).otherwise(number.cast(pl.String)))[column.name]
    return column.cast(pl.String).str.replace(r"\.0*$|(\.\d*[1-9])0+$", "${1}")
