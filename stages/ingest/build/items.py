"""The item table: cleaned text, and what the embedding model will read."""

from functools import cache
from typing import Any

import polars as pl

from stages.ingest.build.ids import distinct, sorted_ids
from stages.ingest.build.text import clean_text, embedding_text, restore_article, title_and_year
from stages.ingest.readers.page_source import is_page_source
from stages.ingest.readers.raw import RAW_ITEMS, TEXT_SHOWN, RawLog, called_by_id
from stages.shared.core.progress import note
from stages.shared.core.schemas import ITEMS

NOTHING_LEFT = "no title is left after cleaning"


def usable_items(raw: RawLog, missing: str = "refuse") -> tuple[pl.DataFrame, pl.DataFrame]:
    """The items that have a title (RAW_ITEMS, the title cleaned, in the order of the source ids), and the rest: row and text.

    missing: ingest.missing_items; "id" also takes those of the log that have none, and calls them by their ids.
    """
    table = pl.read_parquet(raw.items).select(list(RAW_ITEMS))
    cleaned = table.with_columns(
        pl.Series("title", [clean_text(title) for title in table["title"]], dtype=pl.String), before=table["title"]
    )
    has_title = pl.col("title") != ""
    # As it was before cleaning: that is the text a person will look for in the file.
    shown = pl.concat_str("source_id", "before", separator="\t").str.slice(0, TEXT_SHOWN)
    untitled = cleaned.filter(~has_title).select("row", shown.alias("text"))
    usable = cleaned.filter(has_title).drop("before")
    if missing == "id":
        taken = distinct(raw.interactions, "item").alias("source_id").to_frame()
        without = taken.join(usable, on="source_id", how="anti")
        usable = pl.concat([usable, without.with_columns(title=called_by_id("source_id"))], how="diagonal").with_columns(
            pl.col("year", "brand").fill_null(""),
            pl.col("categories").fill_null(pl.lit([], pl.List(pl.String))),
            pl.col("row").fill_null(0),
        )
    order = sorted_ids(usable["source_id"]).to_frame()
    return order.join(usable, on="source_id", how="left", maintain_order="left").select(list(RAW_ITEMS)), untitled


def item_table(items: pl.DataFrame, source_ids: pl.Series, category_word: str) -> pl.DataFrame:
    """The `source_ids`, in that order, of what usable_items gave: ITEMS."""
    usable = source_ids.alias("source_id").to_frame().join(items, on="source_id", how="left", maintain_order="left")
    columns: dict[str, list[Any]] = {name: [] for name in ITEMS}
    clean, is_page = cache(clean_text), cache(is_page_source)  # brands and categories repeat
    dropped = 0
    for number, (source_id, title, year, brand, categories) in enumerate(
        usable.select("source_id", "title", "year", "brand", "categories").iter_rows()
    ):
        title, published = title_and_year(title, year.strip())
        words = [name for name in categories if not is_page(name)]
        dropped += bool(is_page(brand)) or len(words) < len(categories)
        title, brand = restore_article(title), "" if is_page(brand) else clean(brand)
        # "unknown": how MovieLens-100K marks a film without a genre.
        names = [clean(category) for category in words if category != "unknown"]
        names = [name for name in names if name]
        text = embedding_text(title, published, brand, names, category_word)
        for column, value in zip(columns.values(), (number, source_id, title, brand, names, published, text), strict=True):
            column.append(value)
    if dropped:
        note(f"of {dropped:,} items the brand or a category is the source of a web page, and is left out")
    return pl.DataFrame(columns, schema=ITEMS)
