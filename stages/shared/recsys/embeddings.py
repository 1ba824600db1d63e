"""Reads the item embeddings that the stage `embed` made."""

import numpy as np

from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA


def read_embeddings(items: int) -> np.ndarray:
    """float32 [items, dim], mapped from disk; StageError for a missing or damaged file and for vectors that are not finite or all
    the same."""
    path = DATA / "embed" / "embeddings.npy"
    try:
        embeddings_NE: np.ndarray = np.load(path, allow_pickle=False, mmap_mode="c")
    except FileNotFoundError:
        raise StageError(f"{path}: no such file; run the stage that makes it: gr2 run embed") from None
    except (ValueError, EOFError) as error:
        raise StageError(f"{path}: not a readable array ({error}); rerun: gr2 run embed") from None
    if embeddings_NE.ndim != 2 or embeddings_NE.dtype != np.float32 or not len(embeddings_NE):
        raise StageError(f"{path}: {embeddings_NE.dtype} {embeddings_NE.shape}, expected float32 [items, dim]; rerun: gr2 run embed")
    if len(embeddings_NE) != items:
        raise StageError(f"{path}: {len(embeddings_NE)} vectors for the {items} items of data/ingest/items.parquet; rerun: gr2 run embed")
    lowest, highest = embeddings_NE.min(axis=1), embeddings_NE.max(axis=1)
    bad = np.flatnonzero(~(np.isfinite(lowest) & np.isfinite(highest)))
    if bad.size:
        raise StageError(f"{path}: the embedding of item {bad[0]} is not finite ({bad.size} items in all); rerun: gr2 run embed")
    if len(embeddings_NE) > 1 and (embeddings_NE.max(axis=0) == embeddings_NE.min(axis=0)).all():
        raise StageError(
            f"{path}: all {len(embeddings_NE)} embeddings are the same; look at the items' text and at embed.model, then: gr2 run embed"
        )
    return embeddings_NE
