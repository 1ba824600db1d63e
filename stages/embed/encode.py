"""Texts -> vectors in batches of like length; finished batches outlive a killed run."""

import hashlib
import json
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from stages.embed.model import device_of, dtype_of, load, settings_sha256
from stages.embed.params import EmbedParams
from stages.embed.vectors import normalise
from stages.shared.core.progress import Progress
from stages.shared.core.resume import ResumePoints

BATCHING = 1  # raise it when batches are ordered or cut in another way: kept vectors of the old way are then not used


def encode(texts: list[str], folder: Path, params: EmbedParams, points: ResumePoints) -> np.ndarray:
    """float32 [len(texts), dim], rows in the order of `texts`, each of length 1."""
    order = batch_order(texts)
    return in_order_of_texts(encode_in_order(texts, order, folder, params, points), order)


def batch_order(texts: list[str]) -> list[int]:
    """The rows as they are cut into batches, longest first: little padding, memory peaks at once, and equal texts fall side by side."""
    return sorted(range(len(texts)), key=lambda row: (-len(texts[row]), texts[row], row))


def in_order_of_texts(in_order_ND: np.ndarray, order: list[int]) -> np.ndarray:
    """Rows in the order of batch_order -> in that of the texts, each of length 1."""
    vectors = np.empty_like(in_order_ND)
    vectors[order] = in_order_ND
    return normalise(vectors)


def encode_in_order(texts: list[str], rows: list[int], folder: Path, params: EmbedParams, points: ResumePoints) -> np.ndarray:
    """The vectors of `rows`, which are whole batches of batch_order, one below the other and as the model gives them."""
    model = load(folder, params)

    def encode_rows(rows: list[int]) -> np.ndarray:
        batch = [texts[row] for row in rows]
        part = model.encode(batch, prompt=params.instruction or None, batch_size=params.batch_size, show_progress_bar=False)
        return np.asarray(part, dtype=np.float32)

    return in_batches(encode_rows, rows, params.batch_size, points, params.save_seconds)


def in_batches(
    encode_rows: Callable[[list[int]], np.ndarray], rows: list[int], batch_size: int, points: ResumePoints, save_seconds: float
) -> np.ndarray:
    """`encode_rows` of each batch of `rows`, one below the other.

    A part on disk holds the batches since the one before it and is named by its first row: what is missing or damaged
    between two parts is computed again, the rest is loaded.
    """
    saved_parts: list[np.ndarray] = []
    unsaved: list[np.ndarray] = []
    done, saved, last_save = 0, 0, time.monotonic()
    with Progress("items", len(rows), unit="item") as progress:
        while done < len(rows):
            # By its first row: a part may hold more or fewer batches than this run would save at once.
            part = points.load(str(done))
            if part is None:
                part = encode_rows(rows[done : done + batch_size])
                unsaved.append(part)
            elif unsaved:
                points.save(str(saved), np.concatenate(unsaved))
                unsaved = []
            saved_parts.append(part)
            done += len(part)
            progress.add(len(part))
            if not unsaved:
                saved = done
            elif time.monotonic() - last_save >= save_seconds and done < len(rows):
                points.save(str(saved), np.concatenate(unsaved))
                unsaved, saved, last_save = [], done, time.monotonic()
    return np.concatenate(saved_parts)


def resume_key(texts: list[str], folder: Path, weights: str, params: EmbedParams) -> str:
    """Of all that decides the bits of the text vectors. `weights`: hash of the model's weights."""
    device = device_of(params)
    # Also batch size and processor: they change the order in which floats are added, and so the last bits.
    decides = {
        "batching": BATCHING,
        "weights": weights,
        "settings": settings_sha256(folder),
        "params": params.model_dump(include={"threads", "pooling", "instruction", "max_tokens", "batch_size"}),
        "dtype": dtype_of(params),
        "processor": torch.cuda.get_device_name() if device == "cuda" else torch.backends.cpu.get_cpu_capability(),
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers", "sentence-transformers")},
        "texts": texts,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]
