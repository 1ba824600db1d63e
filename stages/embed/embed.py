"""Item text -> one unit vector per item, on request joined with what the base sequences say about it."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stages.embed import collaborative, fuse, neighbours
from stages.embed.encode import encode, resume_key
from stages.embed.metrics import EmbedMetrics
from stages.embed.model import dtype_of, model_folder, weights_sha256
from stages.embed.params import EmbedParams
from stages.embed.shards import joined
from stages.embed.texts import read_texts
from stages.embed.vectors import check_not_constant, mean_cosine
from stages.shared.core.errors import StageError
from stages.shared.core.leakage import check_no_heldout, training_interactions
from stages.shared.core.outputs import DATA, Outputs
from stages.shared.core.resume import ResumePoints
from stages.shared.core.schemas import INTERACTIONS, read_table
from stages.shared.recsys import sasrec


def embed(params: EmbedParams, outputs: Outputs) -> None:
    texts = read_texts()
    folder = model_folder(params.model)
    weights = weights_sha256(folder)
    points = ResumePoints("embed", resume_key(texts, folder, weights, params))
    if params.shards:
        text, dtype = joined(texts, params)
    else:
        text, dtype = encode(texts, folder, params, points), dtype_of(params)
    check_not_constant(text, texts)
    metrics: dict[str, Any] = {
        "items": len(texts),
        "model": {"name": Path(params.model).name, "sha256": weights, "dtype": dtype},
    }
    vectors = text
    if params.collaborative.mode != "none":
        vectors, metrics["collaborative"] = join_collaborative(text, params)
    np.save(outputs.path("embeddings.npy"), vectors)
    outputs.metrics({**metrics, "dim": int(vectors.shape[1]), "mean_cosine": mean_cosine(vectors)}, EmbedMetrics)
    # Last: a run that fails after encoding must find its batches again.
    points.clear()


def join_collaborative(text: np.ndarray, params: EmbedParams) -> tuple[np.ndarray, dict[str, Any]]:
    """Text and collaborative vectors as one, and what metrics.json says about it."""
    options, items = params.collaborative, len(text)
    interactions = read_table(DATA / "ingest/interactions.parquet", INTERACTIONS)
    base = training_interactions(interactions, ("base",))
    leak_check = check_no_heldout(base, interactions, "embed.collaborative")
    beyond = interactions.filter(pl.col("item") >= items)
    if beyond.height:
        raise StageError(
            f"data/ingest/interactions.parquet: item {beyond['item'][0]} is not in items.parquet ({items} items); rerun: gr2 run ingest"
        )
    sequences = sasrec.sequences_of(base)
    trained = collaborative.train_item_vectors(sequences, items, options, params.seed)
    full, r2 = collaborative.predict_unknown(text, trained, params.seed)
    if options.mode == "concat":
        vectors = fuse.concat(text, full, options.weight)
    else:
        # Fitted on trained vectors alone: the predicted ones come from the text, and would agree with it by construction.
        vectors = fuse.align(text, full, options.weight, trained.known)
    later = sasrec.sequences_of(training_interactions(interactions, ("train",)))
    return vectors, {
        "mode": options.mode,
        "loss": {"first": trained.losses[0], "last": trained.losses[-1]},
        "predicted_from_text": {"items": int((~trained.known).sum()), "r2_held_out": r2},
        # The vectors were learnt from base; they have never seen the split train.
        "neighbours": {
            "base": neighbours.compare(text, vectors, sequences, params.seed),
            "train": neighbours.compare(text, vectors, later, params.seed),
        },
        "leak_check": leak_check,
    }
