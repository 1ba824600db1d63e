"""One share of the vectors, and all shares put together: a shard has every Nth batch, so its batches are those of a stage without shards.

What shares a batch decides the last bits of its vectors: for this reason the joined vectors are the same bytes whatever N is, on one kind
of processor.
"""

import hashlib
from pathlib import Path

import numpy as np

from stages.embed.encode import batch_order, encode_in_order, in_order_of_texts, resume_key
from stages.embed.model import dtype_of, model_folder, weights_sha256
from stages.embed.params import SHARDS, EmbedParams
from stages.embed.texts import read_texts
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import Outputs, read_json, write_json
from stages.shared.core.resume import ResumePoints


def rows_of(order: list[int], shard: int, of: int, batch_size: int) -> list[int]:
    """Those of `order` whose batch is the shard's; longest texts first in every one, so that all take about as long."""
    return [row for start in range(shard * batch_size, len(order), of * batch_size) for row in order[start : start + batch_size]]


def embed_shard(shard: int, params: EmbedParams, outputs: Outputs) -> None:
    """Writes vectors.npy [rows of the shard, dim], as the model gives them, and made.json. Empty where batches are fewer than shards."""
    texts, folder, of = read_texts(), model_folder(params.model), len(params.shards)
    rows = rows_of(batch_order(texts), shard, of, params.batch_size)
    key = f"{resume_key(texts, folder, weights_sha256(folder), params)} {shard} of {of}"
    points = ResumePoints(f"embed_shard/{shard}", hashlib.sha256(key.encode()).hexdigest()[:32])
    vectors = encode_in_order(texts, rows, folder, params, points) if rows else np.empty((0, 0), dtype=np.float32)
    np.save(outputs.path("vectors.npy"), vectors)
    write_json(outputs.path("made.json"), {"shard": shard, "of": of, "items": len(texts), "dtype": dtype_of(params)})
    points.clear()


def joined(texts: list[str], params: EmbedParams) -> tuple[np.ndarray, str]:
    """The vectors of all shards as `encode` gives them, and the dtype of the model that made them."""
    order, of, dtypes = batch_order(texts), len(params.shards), dict[str, int]()
    in_order_ND: np.ndarray | None = None
    place_of_row = np.empty(len(order), dtype=np.int64)
    place_of_row[order] = np.arange(len(order))
    for shard in params.shards:
        folder = Path(SHARDS) / str(shard)
        rows = rows_of(order, shard, of, params.batch_size)
        made = read_json(folder / "made.json")
        vectors = np.load(folder / "vectors.npy", allow_pickle=False, mmap_mode="r")
        if (made["shard"], made["of"], made["items"], len(vectors)) != (shard, of, len(texts), len(rows)):
            raise StageError(
                f"{folder}: it is no shard {shard} of {of} of these {len(texts)} items; rerun: gr2 run --force embed_shard@{shard}"
            )
        if not rows:
            continue
        dtypes.setdefault(made["dtype"], shard)
        if in_order_ND is None:
            in_order_ND = np.empty((len(texts), vectors.shape[1]), dtype=np.float32)
        in_order_ND[place_of_row[rows]] = vectors
    if len(dtypes) > 1:
        shards = ", ".join(f"{dtype} (shard {shard})" for dtype, shard in dtypes.items())
        raise StageError(f"{SHARDS}: made with several dtypes: {shards}; set embed.dtype, which auto takes from the machine")
    assert in_order_ND is not None  # there is an item, and its batch is in some shard
    return in_order_of_texts(in_order_ND, order), next(iter(dtypes))
