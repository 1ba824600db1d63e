"""Trains the pre-ranker on the base split, makes a slate for every later position, and adds the evidence.

Leak-free by an earlier cut: the pre-ranker and every statistic see only the first part of each user's sequence (`base`);
the slates of training, validation and test all stand after it, so the target's rank is distributed alike in all three.
"""

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file

from stages.prerank import facts, statistics
from stages.prerank.params import PrerankParams
from stages.shared import sasrec
from stages.shared.errors import StageError
from stages.shared.evidence import EVIDENCE, FACTS
from stages.shared.leaks import check_no_heldout, training_interactions
from stages.shared.outputs import DATA, Outputs
from stages.shared.tables import INTERACTIONS, ITEMS, SLATES, read_table, write_table

SPLITS = {"slates": "train", "valid": "valid", "test": "test"}


def prerank(params: PrerankParams, outputs: Outputs) -> None:
    interactions = read_table(DATA / "ingest/interactions.parquet", INTERACTIONS)
    items = read_table(DATA / "ingest/items.parquet", ITEMS)
    base = training_interactions(interactions, ("base",))
    leak_check = check_no_heldout(base, interactions, "prerank")
    if items.height <= params.candidates:
        raise StageError(
            f"data/ingest/items.parquet: {items.height} items cannot fill slates of {params.candidates}; lower prerank.candidates"
        )

    torch.manual_seed(params.seed)
    model = sasrec.SASRec(items.height, params.hidden, params.layers, params.heads, params.max_length, params.dropout)
    losses = sasrec.train(model, sasrec.sequences_of(base), params.epochs, params.batch_size, params.lr, params.seed)

    slates = make_slates(model, interactions, params)
    with_target = slates.filter(pl.col("target_rank") >= 0)
    counts = statistics.count(base, items)
    values = facts.collect(with_target, counts, params.evidence_last)
    train = (with_target["split"] == "train").to_numpy()
    edges = facts.level_edges(values[train], params.evidence_levels)
    evidence = evidence_table(with_target, values, facts.to_levels(values, edges))

    write_table(slates, outputs.path("slates.parquet"), SLATES)
    write_table(evidence, outputs.path("evidence.parquet"), EVIDENCE)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, outputs.path("model/sasrec.safetensors"))
    outputs.metrics({"loss": {"first": losses[0], "last": losses[-1]}, "slates": slate_metrics(slates), "leak_check": leak_check})


def make_slates(model: sasrec.SASRec, interactions: pl.DataFrame, params: PrerankParams) -> pl.DataFrame:
    """A slate for every position after the base split: the top K of what the user has not taken before it."""
    rows = []
    for (user,), own in interactions.group_by("user", maintain_order=True):
        taken = own["item"].to_list()
        for position, split, timestamp in own.select("position", "split", "timestamp").iter_rows():
            if split in SPLITS and position > 0:
                rows.append((user, position, timestamp, SPLITS[split], taken[:position], taken[position]))
    if not rows:
        raise StageError("data/ingest/interactions.parquet: no position after the base split; users are too short for ingest.base_share")
    histories = [row[4] for row in rows]
    found, scores = sasrec.top_k(model, histories, histories, params.candidates)
    if not np.isfinite(scores).all():
        user = rows[int(np.isinf(scores).any(axis=1).argmax())][0]
        raise StageError(
            f"data/ingest/interactions.parquet: user {user} has taken all but fewer than {params.candidates} items; "
            "lower prerank.candidates"
        )
    targets = np.array([row[5] for row in rows], dtype=np.int32)
    hits = found == targets[:, None]
    ranks = np.where(hits.any(axis=1), hits.argmax(axis=1), -1).astype(np.int32)
    columns = {
        "slate": np.arange(len(rows), dtype=np.int32),
        "user": [row[0] for row in rows],
        "position": [row[1] for row in rows],
        "timestamp": [row[2] for row in rows],
        "split": [row[3] for row in rows],
        "history": [history[-params.history :] for history in histories],
        "candidates": found.tolist(),
        "scores": scores.tolist(),
        "target": targets,
        "target_rank": ranks,
    }
    return pl.DataFrame(columns, schema=SLATES)


def evidence_table(slates: pl.DataFrame, values: np.ndarray, levels: np.ndarray) -> pl.DataFrame:
    """One row a candidate of every slate, in the order of the slates. values, levels: [slates, K, facts]."""
    n, k, _ = values.shape
    columns: dict[str, np.ndarray] = {
        "slate": slates["slate"].to_numpy().repeat(k),
        "rank": np.tile(np.arange(k, dtype=np.int32), n),
        "item": np.array(slates["candidates"].to_list(), dtype=np.int32).ravel(),
    }
    for i, fact in enumerate(FACTS):
        columns[fact] = values[..., i].ravel()
    for i, fact in enumerate(FACTS):
        columns[f"{fact}_level"] = levels[..., i].ravel()
    return pl.DataFrame(columns, schema=EVIDENCE)


def slate_metrics(slates: pl.DataFrame) -> dict[str, dict[str, float | int | list[float]]]:
    """By split: slates, share that holds its target, histogram of the target's incoming rank (shares)."""
    out: dict[str, dict[str, float | int | list[float]]] = {}
    k = len(slates["candidates"][0])
    for split in ("train", "valid", "test"):
        ranks = slates.filter(pl.col("split") == split)["target_rank"].to_numpy()
        hit = ranks[ranks >= 0]
        histogram = np.bincount(hit, minlength=k) / max(1, len(hit))
        out[split] = {
            "slates": len(ranks),
            "with_target": len(hit),
            "hit_rate": len(hit) / max(1, len(ranks)),
            "rank_histogram": histogram.tolist(),
        }
    return out
