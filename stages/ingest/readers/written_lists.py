"""Lists that stand in a text as Python or JSON writes them: what pandas leaves in a CSV cell of a column of lists."""

import re
from typing import Any

import orjson
import polars as pl

from stages.ingest.readers.jsonlines import Unusable, literal, texts

_BRACKETED = r"(?s)^(\[.*\]|\{.*\})$"
_QUOTED = r"'[^']*'|\"[^\"]*\""
_SIDE_BY_SIDE = re.compile(r"['\"]\s+['\"]")  # numpy puts no commas; to Python the texts would be one


def category_lists(rows: pl.DataFrame, separator: str) -> pl.DataFrame:
    """`rows` with `categories` [text] as lists: a written list is read, any other text is cut at the separator. A list whose entries are
    no texts gives the row its reason, as in JSON."""
    text = pl.col("categories").fill_null("").str.strip_chars()
    rows = rows.with_columns(text)
    bracketed = rows["categories"].str.contains(_BRACKETED)
    cut = pl.col("categories").str.split(separator)
    if not bracketed.any():
        return rows.with_columns(cut)
    # Few different ones, and one by one: what stands in brackets may be nested.
    read = {written: _read(written, separator) for written in rows["categories"].filter(bracketed).unique()}
    schema: dict[str, Any] = {"categories": pl.String, "listed": pl.List(pl.String), "wrong": pl.String}
    known = pl.DataFrame([(written, *found) for written, found in read.items()], schema=schema, orient="row")
    joined = rows.join(known, on="categories", how="left", maintain_order="left")
    return joined.with_columns(
        pl.when(bracketed).then("listed").otherwise(cut).alias("categories"), reason=pl.coalesce("reason", "wrong")
    ).drop("listed", "wrong")


def _read(text: str, separator: str) -> tuple[list[str], str | None]:
    """The categories of a text in brackets, and what is wrong with them."""
    try:
        value = written_list(text)
        return (text.split(separator) if value is None else texts(value)), None
    except Unusable as error:
        return [], str(error)


def written_list(text: str) -> Any:
    """The list (or object) that `text` writes out; None where it is no such thing, as `[untitled]`."""
    text = text.strip()
    if not re.match(_BRACKETED, text):
        return None
    if _SIDE_BY_SIDE.search(text) and "{" not in text:
        return [quoted[1:-1] for quoted in re.findall(_QUOTED, text)]
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = literal(text)
    if isinstance(value, tuple | set):
        return list(value)
    return value if isinstance(value, list | dict) else None
