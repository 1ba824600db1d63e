"""Raw MovieLens-100K -> the three tables every later stage starts from."""

from pathlib import Path
from typing import Any

import polars as pl

from stages.ingest.movielens import RawInteraction, RawItem
from stages.ingest.params import IngestParams
from stages.ingest.source import RawData, from_folder, from_wheel, sha256
from stages.ingest.splits import order_and_split
from stages.ingest.text import clean_text, embedding_text, restore_article, title_and_year
from stages.shared.errors import StageError
from stages.shared.outputs import Outputs
from stages.shared.tables import INTERACTIONS, ITEMS, USERS, write_table


def ingest(params: IngestParams, outputs: Outputs) -> None:
    raw = from_wheel() if params.source == "movielens-100k" else from_folder(Path(params.folder))
    items = item_table(raw.items)
    interactions, users, dropped = interaction_tables(raw.interactions, items, params)
    write_table(items, outputs.path("items.parquet"), ITEMS)
    write_table(users, outputs.path("users.parquet"), USERS)
    write_table(interactions, outputs.path("interactions.parquet"), INTERACTIONS)
    outputs.metrics(_metrics(raw, items, interactions, dropped))


def item_table(raw: list[RawItem]) -> pl.DataFrame:
    """Every item of the source, interacted with or not, numbered in the order of the source ids."""
    by_id = {item.source_id: item for item in raw}
    if len(by_id) != len(raw):
        twice = next(item for item in raw if by_id[item.source_id] is not item)
        raise StageError(f"item '{twice.source_id}' stands twice, in rows {twice.row} and {by_id[twice.source_id].row}; remove one")
    rows = []
    for number, source_id in enumerate(sorted_ids(by_id)):
        item = by_id[source_id]
        title, year = title_and_year(clean_text(item.title), item.year.strip())
        title = restore_article(title)
        if not title:
            raise StageError(f"item '{source_id}', row {item.row}: no title is left after cleaning; give it one or remove the item")
        brand = clean_text(item.brand)
        categories = [clean_text(genre) for genre in item.genres if genre != "unknown"]
        categories = [category for category in categories if category]
        rows.append((number, source_id, title, brand, categories, year, embedding_text(title, year, brand, categories)))
    return pl.DataFrame(rows, schema=ITEMS, orient="row")


def interaction_tables(
    raw: list[RawInteraction], items: pl.DataFrame, params: IngestParams
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    """Interactions, users, and how many of what was left out."""
    numbers = dict(zip(items["source_id"], items["item"], strict=True))
    for row in raw:
        if row.item not in numbers:
            raise StageError(f"interactions, row {row.row}: item '{row.item}' is not in the item file; add it there or remove the row")
    pairs = pl.DataFrame(
        [(row.user, numbers[row.item], row.timestamp, row.row) for row in raw],
        schema={"source_id": pl.String, "item": pl.Int32, "timestamp": pl.Int64, "row": pl.Int64},
        orient="row",
    )
    earliest = pairs.sort("timestamp", "row").unique(["source_id", "item"], keep="first", maintain_order=True)
    kept = earliest.filter(pl.len().over("source_id") >= params.min_interactions)
    if kept.is_empty():
        raise StageError(f"no user has {params.min_interactions} interactions or more; lower ingest.min_interactions or give more data")
    ids = sorted_ids(kept["source_id"].unique())
    users = pl.DataFrame({"user": range(len(ids)), "source_id": ids}, schema=USERS)
    interactions = order_and_split(kept.join(users, on="source_id"), params)
    dropped = {
        "duplicates": pairs.height - earliest.height,
        "users": earliest["source_id"].n_unique() - users.height,
        "interactions_of_dropped_users": earliest.height - kept.height,
    }
    return interactions, users, dropped


def sorted_ids(ids: Any) -> list[str]:
    """Source ids in a fixed order: by number if all are plain numbers, else as text."""
    ids = list(ids)
    if all(source_id.isascii() and source_id.isdigit() for source_id in ids):
        return sorted(ids, key=lambda source_id: (int(source_id), source_id))
    return sorted(ids)


def _metrics(raw: RawData, items: pl.DataFrame, interactions: pl.DataFrame, dropped: dict[str, int]) -> dict[str, Any]:
    lengths = interactions.group_by("user").agg(pl.len().alias("length"), (pl.col("split") == "test").any().alias("split"))
    by_split = interactions["split"].value_counts()
    return {
        "raw": {
            "name": raw.name,
            "sha256": raw.sha256,
            "bytes": raw.size,
            "rows": len(raw.interactions),
            "files": {file.name: {"sha256": sha256(file.content), "bytes": len(file.content)} for file in raw.files},
        },
        "users": lengths.height,
        "users_all_base": lengths.height - int(lengths["split"].sum()),
        "items": items.height,
        "items_without_interactions": items.height - interactions["item"].n_unique(),
        "items_sharing_their_text": items.height - items["text"].n_unique(),
        "interactions": interactions.height,
        "by_split": {name: dict(by_split.iter_rows()).get(name, 0) for name in ("base", "slates", "valid", "test")},
        "time": {"first": interactions["timestamp"].min(), "last": interactions["timestamp"].max(), "unit": "seconds since 1970"},
        "dropped": dropped,
        "sequence_length": {
            "min": lengths["length"].min(),
            "median": lengths["length"].median(),
            "mean": round(interactions.height / lengths.height, 2),
            "max": lengths["length"].max(),
        },
    }
