"""The retriever `popularity`: what most training rows hold, the same order for everyone. Also the last resort of the others."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from safetensors.numpy import save_file

from stages.retrieve.retrievers.retriever import Figures
from stages.shared.recsys.ragged import flatten

BATCH = 1024


class Popularity:
    def __init__(self, counts: np.ndarray):
        """counts: [items]. Ties go by item number."""
        self.counts = counts.astype(np.float32)
        self.order = np.argsort(-counts, kind="stable").astype(np.int64)

    def top_k(self, histories: Sequence[Sequence[int]], seen: Sequence[Sequence[int]], k: int) -> tuple[np.ndarray, np.ndarray]:
        batches = [self.most_counted(seen[start : start + BATCH], k) for start in range(0, len(seen), BATCH)]
        return np.concatenate([items for items, _ in batches]).astype(np.int32), np.concatenate([scores for _, scores in batches])

    def most_counted(self, seen: Sequence[Sequence[int]], k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k most counted items not in `seen`: (items int64 [B, k], counts float32 [B, k], -inf past the last one)."""
        rows, _, values = flatten(seen)
        # No row can have seen more of the order's head than it has seen at all.
        head = self.order[: k + max(map(len, seen), default=0)]
        place = np.full(len(self.order), -1)
        place[head] = np.arange(len(head))
        open_BH = np.ones((len(seen), len(head)), dtype=bool)
        inside = place[values] >= 0
        open_BH[rows[inside], place[values[inside]]] = False
        if len(head) < k:
            open_BH = np.pad(open_BH, ((0, 0), (0, k - len(head))))
            head = np.pad(head, (0, k - len(head)))
        first_BK = np.argsort(~open_BH, axis=1, kind="stable")[:, :k]
        items_BK = head[first_BK]
        is_open_BK = np.take_along_axis(open_BH, first_BK, axis=1)
        return items_BK, np.where(is_open_BK, self.counts[items_BK], -np.inf).astype(np.float32)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"counts": self.counts}, folder / "popularity.safetensors")


def fit(training: pl.DataFrame, items: int) -> tuple[Popularity, Figures]:
    counts = np.bincount(training["item"].to_numpy(), minlength=items)
    return Popularity(counts), {"items_counted": int((counts > 0).sum())}
