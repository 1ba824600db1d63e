"""RecBole's atomic files: tab-separated, UTF-8, with a header of `name:type`.

Of files of one's own, times, titles and the whole `.item` file may be missing; a `.user` file is not read.
"""

from dataclasses import replace
from pathlib import Path

import polars as pl

from stages.ingest.readers.chunks import Input
from stages.ingest.readers.delimited import Columns, read_delimited
from stages.ingest.readers.raw import RawFile
from stages.ingest.readers.validate import StagingTables
from stages.ingest.sources.table import PositionCounter
from stages.shared.core.errors import StageError
from stages.shared.core.progress import note
from stages.shared.sources.encoding import as_utf8

_HINT = "the first row must name the columns, as in user_id:token; gr2 init FOLDER reads files with other names"
_BY_ID = pl.format("Item {}", pl.col("source_id").str.strip_chars())
_LOG: dict[str, tuple[str, ...]] = {"user": ("user_id",), "item": ("item_id",), "timestamp": ("timestamp",), "rating": ("rating",)}


def read_inter(source: Input, scratch: StagingTables) -> RawFile:
    """A `.inter` file with times."""
    columns = Columns(_LOG, ["rating"], _HINT, typed=True)
    return read_delimited(source, "\t", columns, lambda table: scratch.add_interactions(source.name, table), numbers_in="s")


def read_own_inter(source: Input, scratch: StagingTables) -> tuple[RawFile, bool]:
    """user_id, item_id, and timestamp and rating where it has them; and whether there are times. Without, the order of the file counts."""
    # The names that RecBole's own data sets use; others are renamed in the file, or read as source: table.
    columns, numbering = Columns(_LOG, ["rating", "timestamp"], _HINT, typed=True), PositionCounter()

    def take(table: pl.DataFrame) -> None:
        has_times = columns.positions["timestamp"] is not None
        scratch.add_interactions(source.name, table if has_times else numbering.number(table))

    file = read_delimited(source, "\t", columns, take, numbers_in="s")
    if columns.positions["timestamp"] is None:
        note(f"{source.name} has no column timestamp: the order of the file counts")
    return file, columns.positions["timestamp"] is not None


def read_item(source: Input, scratch: StagingTables) -> RawFile:
    """A `.item` file: item_id; title, year, categories (separated by spaces) and brand where it has them."""
    names = {
        "source_id": ("item_id",),
        "title": ("movie_title", "title"),
        "year": ("release_year", "year"),
        "brand": ("brand",),
        "categories": ("class", "genre", "categories"),
    }
    columns = Columns(names, ["title", "year", "brand", "categories"], _HINT, typed=True)

    def take(table: pl.DataFrame) -> None:
        if columns.positions["title"] is None:
            table = table.with_columns(title=_BY_ID)
        scratch.add_items(source.name, table.with_columns(pl.col("categories").fill_null("").str.extract_all(r"\S+")))

    file = read_delimited(source, "\t", columns, take)
    if columns.positions["title"] is None:
        note(f"{source.name} has no column title (or movie_title): items are called by their ids")
    return file


def read_items_of_inter(source: Input, scratch: StagingTables) -> RawFile:
    """Where there is no `.item` file: the items of the log, called by their ids. `source`: the `.inter` file."""
    name = f"items of {source.name}"

    def take(table: pl.DataFrame) -> None:
        usable = table.filter(pl.col("reason").is_null() & (pl.col("source_id").str.strip_chars() != "")).unique(
            "source_id", maintain_order=True
        )
        no_categories = pl.lit([], pl.List(pl.String))
        scratch.add_items(name, usable.with_columns(title=_BY_ID, year=pl.lit(""), brand=pl.lit(""), categories=no_categories))

    note(f"there is no .item file beside {source.name}: items are called by their ids")
    file = read_delimited(source, "\t", Columns({"source_id": ("item_id",)}, (), _HINT, typed=True), take)
    return replace(file, name=name)


def has_files(folder: Path) -> bool:
    """Whether one of the two stands in `folder`; u.item belongs to MovieLens-100K."""
    return any([*folder.glob("*.inter"), *(path for path in folder.glob("*.item") if path.name != "u.item")])


def has_other_names(folder: Path) -> bool:
    """Whether a `.inter` file stands in `folder` whose columns of users and items are not called as in RecBole's own data sets."""
    headers = [_first_line(path) for path in folder.glob("*.inter")]
    return any(not {"user_id", "item_id"} <= {name.split(":")[0].strip() for name in header.split("\t")} for header in headers)


def find(folder: Path) -> tuple[Input, Input | None]:
    """The `.inter` and the `.item` file of `folder`, None where there is none; StageError where there are several."""
    return _only(folder, "*.inter"), _only(folder, "*.item") if any(folder.glob("*.item")) else None


def _only(folder: Path, pattern: str) -> Input:
    paths = sorted(folder.glob(pattern))
    if len(paths) != 1:
        names = ", ".join(path.name for path in paths) or "none"
        raise StageError(f"{folder}: exactly one {pattern} file is needed, found {names}; add it or leave only the one to use")
    return Input(paths[0])


def _first_line(path: Path) -> str:
    with path.open("rb") as file:
        return as_utf8(file, path.name)[0].readline(2**16).decode(errors="replace").lstrip("\ufeff")
