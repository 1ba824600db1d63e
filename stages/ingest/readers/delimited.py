"""Text with one record a line and a separator between its fields -> columns, vectorised."""

import csv
import re
from collections.abc import Callable, Collection, Iterator, Mapping

import polars as pl

from stages.ingest.readers.ahead import ahead
from stages.ingest.readers.chunks import Block, Input, Lines, line_table
from stages.ingest.readers.numbers import read_numbers
from stages.ingest.readers.raw import RawFile
from stages.ingest.readers.validate import TimeUnit, nothing_read
from stages.shared.core.errors import StageError
from stages.shared.sources.encoding import UTF8, to_utf8

csv.field_size_limit(2**26)  # a line is never longer (chunks.py)


class Columns:
    """Which field of a line is which of our columns.

    `names`: our name -> the names it may have in the header; without a header -> (), in the order of the fields. What is `optional`
    comes out null where the header does not have it. `hint` ends the error. `typed`: the header says `name:type`, as RecBole's does.
    """

    def __init__(self, names: Mapping[str, tuple[str, ...]], optional: Collection[str] = (), hint: str = "", typed: bool = False):
        self.names = names
        self.optional = optional
        self.hint = hint or "the first row must name the columns"
        self.typed = typed
        self.width = len(names)
        self.has_header = any(names.values())
        self.positions: dict[str, int | None] = {} if self.has_header else {name: index for index, name in enumerate(names)}

    def read_header(self, file: str, header: list[str]) -> None:
        # item_id:token,title:token is two columns under another separator, and not one with a strange type.
        names = [name.split(":")[0] if self.typed and name.count(":") < 2 else name for name in header]
        for name, spellings in self.names.items():
            positions = [names.index(spelling) for spelling in spellings if spelling in names]
            if not positions and name not in self.optional:
                present = ", ".join(map(_visible, header)) if any(header) else "nothing"
                is_other = len(header) == 1 and (re.search(r"[,;|\t]", header[0]) or (self.typed and header[0].count(":") > 1))
                wrong = "; it has one column, so the separator is another" if is_other else ""
                raise StageError(f"{file}, row 1: the column '{spellings[0]}' is missing (found: {present}){wrong}; {self.hint}")
            if positions and names.count(names[positions[0]]) > 1:
                raise StageError(f"{file}, row 1: the column '{names[positions[0]]}' stands twice; rename one of them")
            self.positions[name] = positions[0] if positions else None
        self.width = len(header)


def _visible(name: str) -> str:
    """With what a reader does not see, such as a byte order mark, spelt out."""
    return name if name.isprintable() else ascii(name)


def read_delimited(
    source: Input,
    separator: str,
    columns: Columns,
    take: Callable[[pl.DataFrame], None],
    encoding: str = "utf-8",
    quoted: bool = False,
    numbers_in: TimeUnit | None = None,
) -> RawFile:
    """Calls `take` with one frame a block: the columns as text, and `row`, `reason`, `text`.

    With `quoted` a line that holds a quote character is read by the rules of CSV; a record stays on one line. numbers_in: the unit of its
    times, if the file is a log; a block then comes as RAW_NUMBERS instead where that is the same (numbers.py).
    """
    lines = Lines(source, columns.has_header)

    def blocks() -> Iterator[Block]:
        for block in lines:
            if columns.has_header and not columns.positions:
                columns.read_header(lines.name, _header(lines, separator, quoted, encoding))
            yield block

    def parsed(block: Block) -> pl.DataFrame | None:
        if numbers_in and (numbers := read_numbers(block, separator, columns.positions, columns.width, numbers_in)) is not None:
            return numbers
        # What was converted has no bytes in `encoding` any more: what is not UTF-8 now is no text.
        table = line_table(block, encoding if lines.encoding == UTF8 else UTF8)
        return split_columns(table, separator, columns, quoted) if table.height else None

    empty = True
    for table in ahead(parsed, blocks()):
        if table is not None:
            empty = False
            take(table)
    if columns.has_header and not columns.positions:
        columns.read_header(lines.name, _header(lines, separator, quoted, encoding))  # a file without rows still has to name them
    if empty:
        raise nothing_read(lines.name)
    return lines.file


def split_columns(lines: pl.DataFrame, separator: str, columns: Columns, quoted: bool = False) -> pl.DataFrame:
    """Columns line, row, reason -> those of `columns`, row, reason, text."""
    if quoted:
        # Python's csv module for the few lines with a quote, a vectorised split for all others.
        has_quote = lines["line"].str.contains('"', literal=True) & lines["reason"].is_null()
        if has_quote.any():
            unquoted = split_columns(lines.filter(~has_quote), separator, columns)
            return pl.concat([unquoted, _split_by_rules(lines.filter(has_quote), separator, columns)]).sort("row")
    count = pl.col("line").str.count_matches(separator, literal=True) + 1
    split = pl.col("line").str.split_exact(separator, columns.width - 1).alias("fields")
    width = pl.when(pl.col("count") != columns.width).then(pl.format(f"{{}} columns where {columns.width} are expected", "count"))
    chosen = {
        name: pl.lit(None, pl.String) if index is None else pl.col("fields").struct.field(f"field_{index}")
        for name, index in columns.positions.items()
    }
    table = lines.select("line", "row", "reason", split, count=count)
    return table.select(**chosen, row="row", reason=pl.coalesce("reason", width), text="line")


def _split_by_rules(lines: pl.DataFrame, separator: str, columns: Columns) -> pl.DataFrame:
    schema = {**dict.fromkeys(columns.positions, pl.String), "row": pl.Int64, "reason": pl.String, "text": pl.String}
    return pl.DataFrame(list(_parsed(lines, separator, columns)), schema=schema, orient="row")


def _parsed(lines: pl.DataFrame, separator: str, columns: Columns) -> Iterator[list[str | int | None]]:
    for line, row, _ in lines.iter_rows():
        fields: list[str] = []
        reason = None
        try:
            fields = next(csv.reader([line], delimiter=separator, strict=True))
            if len(fields) != columns.width:
                reason = f"{len(fields)} columns where {columns.width} are expected"
        except (csv.Error, StopIteration):
            reason = "quotes do not match"
        yield [*(None if reason or place is None else fields[place] for place in columns.positions.values()), row, reason, line]


def _header(lines: Lines, separator: str, quoted: bool, encoding: str) -> list[str]:
    try:
        text = _decoded(lines.header, encoding).strip("\r\n")
        fields = next(csv.reader([text], delimiter=separator, strict=True), []) if quoted else text.split(separator)
    except UnicodeDecodeError:
        raise StageError(f"{lines.name}, row 1: not UTF-8; convert the file, e.g. {to_utf8(lines.name, 'latin1')}") from None
    except csv.Error as error:
        raise StageError(f"{lines.name}, row 1: the names of the columns are not CSV ({error})") from None
    return [field.strip() for field in fields]


def _decoded(header: bytes, encoding: str) -> str:
    """As UTF-8 where it is that, as in every line below (chunks.py)."""
    try:
        return header.decode()
    except UnicodeDecodeError:
        if encoding == "utf-8":
            raise
        return header.decode(encoding)
