"""Fits the retriever, makes a slate for every later position, and adds the feature_table.

Nothing that ranks a slate or counts for it has seen its target: by an earlier cut, or by folds of users (stages/retrieve/folds.py).
"""

from typing import Any

import numpy as np
import polars as pl

from stages.retrieve import candidate_features, folds, slates, statistics
from stages.retrieve.augmentations import permute_labels
from stages.retrieve.distance import rank_distances
from stages.retrieve.params import RetrieveParams
from stages.retrieve.retrievers import retriever
from stages.shared.core.errors import StageError
from stages.shared.core.leakage import check_counts, check_no_heldout, check_out_of_sample, training_interactions
from stages.shared.core.outputs import DATA, Outputs
from stages.shared.core.schemas import INTERACTIONS, ITEMS, SLATES, read_table, write_table
from stages.shared.slates.candidate_features import CANDIDATE_FEATURES


def retrieve(params: RetrieveParams, outputs: Outputs) -> None:
    interactions = read_table(DATA / "ingest/interactions.parquet", INTERACTIONS)
    items = read_table(DATA / "ingest/items.parquet", ITEMS)
    if items.height <= params.candidates:
        raise StageError(
            f"data/ingest/items.parquet: {items.height} items cannot fill slates of {params.candidates}; lower retrieve.candidates"
        )
    fitted_on = folds.FITTED_ON[params.cross_fit]
    leak_check = check_no_heldout(training_interactions(interactions, fitted_on), interactions, "retrieve")

    made, values, figures = [], [], []
    for part in folds.parts(slates.places(interactions, params.positions), interactions, params):
        own_slates, own_values, own_figures = rank(part, interactions, items, params, outputs)
        made.append(own_slates)
        values.append(own_values)
        figures.append(own_figures)
    table = pl.concat(made)
    with_target = table.filter(pl.col("target_rank") >= 0)  # as the parts come, and so the features
    values_NKF = np.concatenate(values)[with_target["slate"].arg_sort().to_numpy()]
    table, with_target = table.sort("slate"), with_target.sort("slate")
    distances = rank_distances(table, params.candidates, params.seed)

    train = (with_target["split"] == "train").to_numpy()
    edges = candidate_features.bin_edges(values_NKF[train], params.feature_bins)
    feature_table = candidate_features.feature_table(with_target, values_NKF, candidate_features.to_bins(values_NKF, edges))
    if params.labels == "permuted":
        table = permute_labels(table, interactions, params.seed)

    write_table(table, outputs.path("slates.parquet"), SLATES)
    write_table(feature_table, outputs.path("candidate_features.parquet"), CANDIDATE_FEATURES)
    dealt = {"folds": {"number": params.folds, "seed": params.seed, "figures": figures[:-1]}} if params.cross_fit == "folds" else {}
    outputs.metrics(
        {
            **figures[-1],
            **dealt,
            "cross_fit": params.cross_fit,
            "fitted_on": list(fitted_on),
            "leak_check": {**leak_check, "in_sample": 0, "overcounted": 0},  # those two were checked part by part
            "slates": slates.summary(table, params.candidates),
            "rank_distance": distances,
        }
    )


def rank(
    part: folds.Part, interactions: pl.DataFrame, items: pl.DataFrame, params: RetrieveParams, outputs: Outputs
) -> tuple[pl.DataFrame, np.ndarray, dict[str, Any]]:
    """The slates of `part`, the features of those that hold their target, and the figures of the fit. Only the model of all users is
    kept."""
    name = "the retriever" if part.fold == folds.WHOLE else f"the retriever of fold {part.fold}"
    counts = statistics.count(part.training, items)
    check_counts(counts.popularity, part.allowed, f"the statistics of {name}", folds.FITTED_ON[params.cross_fit])
    model, figures = retriever.fit(params, part.training, items.height, params.seed)
    if part.fold == folds.WHOLE:
        folder = outputs.path("model")
        folder.mkdir()  # stays empty where the retriever has nothing of its own to keep
        model.save(folder)
    own = slates.make(model, part.places, interactions, counts, params, part.fold)
    check_out_of_sample(own, part.training, name)
    return (
        own,
        candidate_features.collect(own.filter(pl.col("target_rank") >= 0), params.candidates, counts, params.feature_history),
        figures,
    )
