"""One file of a folder, by its content: format, encoding, separator, columns and first rows."""

import csv
import zlib
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stages.ingest.readers.jsonlines import text
from stages.ingest.sources.table import is_quoted
from stages.shared.core.errors import StageError
from stages.shared.sources.encoding import BOM, UTF8, as_utf8, shown, unpacked
from stages.shared.sources.first_bytes import is_parquet
from stages.shared.sources.nested import flat, paths_of, with_paths
from stages.tools.intake.choices import Choices
from stages.tools.intake.columns import Column, is_number
from stages.tools.intake.foreign import foreign, written_otherwise

SAMPLE_BYTES, SAMPLE_ROWS = 4 * 2**20, 20_000
SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar", "::": "two colons"}
_LINES = 200  # that a separator is told by
_STEADY = 0.9  # share of them with the same number of columns


@dataclass(frozen=True)
class FileLook:
    """`columns`: by name, the first rows. `fault`: why it is no table that can be read, or empty. `whole`: all rows are seen."""

    name: str
    form: str = ""
    separator: str = ""
    encoding: str = "utf-8"
    columns: dict[str, Column] = field(default_factory=dict)
    rows: int = 0
    whole: bool = True
    parts: tuple[str, ...] = ()  # names of the files, where `name` is a pattern
    notes: tuple[str, ...] = ()
    fault: str = ""

    def __str__(self) -> str:
        if self.fault:
            return f"{self.name}: {self.fault}"
        size = f"{self.rows:,} rows" if self.whole else f"the first {self.rows:,} rows looked at"
        return "; ".join([f"{self.name}: {self.form}", size, f"columns {', '.join(self.columns)}", *self.notes])

    @property
    def first(self) -> str:
        """The name of a file of it: its ending says the form."""
        return self.parts[0] if self.parts else self.name

    def location(self) -> str:
        """What retrieve.reads names, within the folder: a file, or where it lies in parts their own folder."""
        if not self.parts:
            return self.name
        if "/" not in self.name:
            raise StageError(f"{self.name}: lists that were shown, in parts; put these files into a folder of their own, beside the others")
        return self.name.split("/")[0]


def look(path: Path, choices: Choices) -> FileLook:
    """Asks by `choices` where encoding or separator can be read in two ways."""
    name = path.name
    if path.is_dir():
        return FileLook(name, fault="a folder; name it as FOLDER where the data lie in it")
    if is_parquet(path):
        return _parquet(path)
    with path.open("rb") as file:
        start = file.read(16)
        if fault := foreign(start, name):
            return FileLook(name, fault=fault)
        file.seek(0)
        try:
            text, encoding = as_utf8(unpacked(file), name)
            data = text.read(SAMPLE_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            return FileLook(name, fault=f"cut short or damaged ({error}); fetch it again")
        except StageError as error:
            return FileLook(name, fault=str(error).removeprefix(f"{name}, "))
    whole = len(data) <= SAMPLE_BYTES
    # The last line of a part is cut somewhere.
    data = data if whole else data[: data.rfind(b"\n") + 1]
    while data.startswith(BOM):
        data = data.removeprefix(BOM)
    found = _by_content(name, data, whole, choices)
    if encoding == UTF8:
        return found
    return replace(found, notes=(*found.notes, f"in {shown(encoding)}, by its byte-order mark; read as UTF-8"))


def _by_content(name: str, data: bytes, whole: bool, choices: Choices) -> FileLook:
    if not data.strip():
        return FileLook(name, fault="empty")
    if data.lstrip()[:1] == b"{":
        return _json_lines(name, data, whole)
    if data.lstrip()[:1] == b"[":
        return FileLook(name, fault="a JSON array or no table; one object a line is expected: jq -c '.[]' FILE > FILE.jsonl")
    return _delimited(name, data, whole, choices)


def _parquet(path: Path) -> FileLook:
    try:
        with pq.ParquetFile(path) as file:
            rows = file.metadata.num_rows
            batch = next(file.iter_batches(SAMPLE_ROWS), None)
    except (pa.ArrowInvalid, OSError) as error:
        return FileLook(path.name, fault=f"not a readable Parquet file ({error})")
    if batch is None:
        return FileLook(path.name, fault="no rows")
    table = pl.DataFrame(pl.from_arrow(batch))
    table = with_paths(table, paths_of(table.schema))
    columns = {name: Column.of_series(table[name]) for name in table.columns}
    return FileLook(path.name, "Parquet", columns=columns, rows=table.height, whole=rows == table.height)


def _json_lines(name: str, data: bytes, whole: bool) -> FileLook:
    records: list[dict[str, Any]] = []
    bad = 0
    for line in data.split(b"\n")[:SAMPLE_ROWS]:
        if line.strip():
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError:
                record = None
            if isinstance(record, dict):
                records.append(dict(flat(record)))
            else:
                bad += 1
    if not records:
        return FileLook(name, fault="begins like JSON, and no line of it is a JSON object; one a line is expected")
    names = dict.fromkeys(key for record in records for key in record)
    columns = {key: Column.of_values(key, [record.get(key) for record in records], text) for key in names}
    notes = (f"{bad} lines are no JSON objects",) if bad else ()
    return FileLook(name, "JSON lines", columns=columns, rows=len(records), whole=whole and len(records) < SAMPLE_ROWS, notes=notes)


def _delimited(name: str, data: bytes, whole: bool, choices: Choices) -> FileLook:
    encoding = _encoding(name, data, choices)
    text = data.decode(encoding, errors="replace")
    lines = [line for line in text.split("\n") if line.strip()][: SAMPLE_ROWS + 1]
    if fault := written_otherwise(name, lines[0], text):
        return FileLook(name, fault=fault)
    separator = _separator(name, [line.rstrip("\r") for line in lines[:_LINES]], choices)
    if not separator:
        return FileLook(name, fault="no table: no separator cuts its lines into the same number of columns")
    rows = [split(line.rstrip("\r"), separator) for line in lines]
    header = [field.strip() for field in rows[0]]
    look = FileLook(name, f"text, columns cut at {SEPARATORS.get(separator, repr(separator))}, {encoding.upper()}", separator, encoding)
    if repeated := [column for column, count in Counter(header).items() if count > 1 and column]:
        return replace(look, fault=f"the column '{repeated[0]}' stands twice; rename one of them")
    if not _names_columns(header, rows[1:]):
        example = separator.join(f"column{place}" for place in range(1, len(header) + 1))
        shown = ", ".join(header[:5])
        unpack = "unpack it, and " if name.endswith(".gz") else ""
        command = f"sed -i '1i {example}' {name.removesuffix('.gz')}"
        return replace(look, fault=f"its first row names no columns (it has {shown}); {unpack}put a row of names before it: {command}")
    good = [row for row in rows[1:] if len(row) == len(header)]
    if not good:
        return replace(look, fault="no rows")
    columns = {column: Column.of_values(column, [row[place] for row in good], str) for place, column in enumerate(header) if column}
    unfit = len(rows) - 1 - len(good)
    notes = (f"{unfit} rows do not have {len(header)} columns",) if unfit else ()
    return replace(look, columns=columns, rows=len(good), whole=whole and len(lines) <= SAMPLE_ROWS, notes=notes)


def _encoding(name: str, data: bytes, choices: Choices) -> str:
    try:
        data.decode()
        return "utf-8"
    except UnicodeDecodeError as error:
        if given := choices.given.get("encoding"):
            return given
        shown = data[max(0, error.start - 12) : error.start + 12].decode("latin-1")
    choices.ask(f"{name} is not UTF-8; as latin-1 it reads {shown!r}; where that is wrong, convert it with iconv", "encoding", ["latin-1"])
    return "latin-1"


def _separator(name: str, lines: list[str], choices: Choices) -> str:
    """The one that cuts the header and nearly all lines into the same number of columns; empty where none does."""
    if given := choices.given.get("separator"):
        return given.replace("\\t", "\t")
    fitting = []
    for separator in SEPARATORS:
        widths = Counter(len(split(line, separator)) for line in lines)
        width, count = widths.most_common(1)[0]
        if width > 1 and count >= _STEADY * len(lines) and len(split(lines[0], separator)) == width:
            fitting.append(separator)
    if len(fitting) > 1:
        choices.ask(f"{name}: more than one character cuts all lines alike", "separator", fitting)
    return fitting[0] if fitting else ""


def split(line: str, separator: str) -> list[str]:
    """As ingest will."""
    if not is_quoted(separator) or '"' not in line:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator, strict=True), [])
    except csv.Error:
        return [line]


def _names_columns(header: list[str], rows: list[list[str]]) -> bool:
    """Whether the first row can be one of names: no number, no name twice, and none that stands below it again."""
    if any(is_number(field) for field in header) or not any(header):
        return False
    return not any(field and field in {row[place] for row in rows if place < len(row)} for place, field in enumerate(header))
