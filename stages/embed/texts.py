"""The texts that are embedded."""

from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA
from stages.shared.core.schemas import ITEMS, read_table


def read_texts() -> list[str]:
    """By item. StageError names an item without text."""
    items = read_table(DATA / "ingest/items.parquet", ITEMS).sort("item")
    texts = items["text"].to_list()
    for item, (text, source_id) in enumerate(zip(texts, items["source_id"], strict=True)):
        if text is None or not text.strip():
            raise StageError(f"data/ingest/items.parquet: item {item} (source id '{source_id}') has no text to embed; give it a title")
    return texts
