"""Columns whose texts may be lists that are written out: cells as pandas leaves them in CSV."""

from typing import Any

import polars as pl

from stages.ingest.readers.jsonlines import Unusable, texts
from stages.shared.sources.written_lists import BRACKETED, written_list


def category_lists(rows: pl.DataFrame, separator: str) -> pl.DataFrame:
    """`rows` with `categories` [text] as lists: a written list is read, any other text is cut at the separator. A list whose entries are
    no texts gives the row its reason, as in JSON."""
    text = pl.col("categories").fill_null("").str.strip_chars()
    rows = rows.with_columns(text)
    bracketed = rows["categories"].str.contains(BRACKETED)
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
