"""Fits the retriever, makes a slate for every later position, and adds the feature_table.

Nothing that ranks a slate or counts for it has seen its target: by an earlier cut, or by folds of users (stages/retrieve/folds.py).
"""

import numpy as np
import polars as pl

from stages.retrieve import folds, slates
from stages.retrieve.augmentations import permute_labels
from stages.retrieve.distance import rank_distances
from stages.retrieve.domain_rules import mine
from stages.retrieve.given.given import GivenSlates, given_slates
from stages.retrieve.metrics import RetrieveMetrics
from stages.retrieve.params import RetrieveParams
from stages.retrieve.retrievers import retriever
from stages.retrieve.retrievers.retriever import Figures
from stages.shared.core.errors import StageError
from stages.shared.core.leakage import check_counts, check_no_heldout, check_out_of_sample, training_interactions
from stages.shared.core.outputs import DATA, Outputs
from stages.shared.core.params import load_params
from stages.shared.core.progress import note
from stages.shared.core.schemas import INTERACTIONS, ITEMS, LOGGED_SLATES, SLATES, read_table, write_table
from stages.shared.slates.candidate_features import features_with, schema_with
from stages.shared.slates.features import statistics
from stages.shared.slates.features import values as feature_values
from stages.shared.slates.prompt_params import PromptParams


def retrieve(params: RetrieveParams, outputs: Outputs) -> None:
    interactions = read_table(DATA / "ingest/interactions.parquet", INTERACTIONS)
    items = read_table(DATA / "ingest/items.parquet", ITEMS)
    logged = given_slates(params, interactions, items) if params.model == "given" else None
    if not logged and items.height <= params.candidates:
        raise StageError(
            f"data/ingest/items.parquet: {items.height} items cannot fill slates of {params.candidates}; lower retrieve.candidates"
        )
    features = features_with(load_params("prompt", PromptParams).more_features)
    if not statistics.tells_time(interactions["timestamp"].to_numpy()):
        note("the log has no times: the feature re is the same for every item; prompt.less_features: [re] leaves it out of prompts")
    fitted_on = folds.FITTED_ON[params.cross_fit]
    leak_check = check_no_heldout(training_interactions(interactions, fitted_on), interactions, "retrieve")

    slate_parts, value_parts, fold_figures = [], [], []
    positions = logged.table if logged else slates.slate_positions(interactions, params.positions)
    for fold in folds.all_folds(positions, interactions, params):
        fold_slates, fold_values, figures = rank(fold, interactions, items, params, features, outputs, logged)
        slate_parts.append(fold_slates)
        value_parts.append(fold_values)
        fold_figures.append(figures)
    table = pl.concat(slate_parts)
    # Rows come fold by fold here, in the slates and in their features alike; both are put in the order of slate ids.
    with_target = table.filter(pl.col("target_rank") >= 0)
    values_NKF = np.concatenate(value_parts)[with_target["slate"].arg_sort().to_numpy()]
    table, with_target = table.sort("slate"), with_target.sort("slate")
    distances = rank_distances(table, params.candidates, params.seed)

    # The edges of the bins come from training slates alone: held-out slates must not shape what the models read.
    train = (with_target["split"] == "train").to_numpy()
    edges = feature_values.bin_edges(values_NKF[train], params.feature_bins)
    feature_table = feature_values.feature_table(with_target, values_NKF, feature_values.to_bins(values_NKF, edges), features)
    if params.labels == "permuted":
        table = permute_labels(table, interactions, params.seed)

    write_table(table, outputs.path("slates.parquet"), LOGGED_SLATES if logged else SLATES)
    mine(training_interactions(interactions), items).write(outputs.path("domain_rules.json"))
    write_table(feature_table, outputs.path("candidate_features.parquet"), schema_with(features))
    by_fold = {"folds": {"number": params.folds, "seed": params.seed, "figures": fold_figures[:-1]}} if params.cross_fit == "folds" else {}
    outputs.metrics(
        {
            **fold_figures[-1],
            **by_fold,
            **({"given": logged.figures.model_dump(exclude_none=True)} if logged else {}),
            "cross_fit": params.cross_fit,
            "fitted_on": list(fitted_on),
            "leak_check": {**leak_check, "in_sample": 0, "overcounted": 0},  # rank() has checked the last two for each fold
            "slates": slates.summary(table, params.candidates),
            "rank_distance": distances,
        },
        RetrieveMetrics,
    )


def rank(
    fold: folds.Fold,
    interactions: pl.DataFrame,
    items: pl.DataFrame,
    params: RetrieveParams,
    features: tuple[str, ...],
    outputs: Outputs,
    logged: GivenSlates | None = None,
) -> tuple[pl.DataFrame, np.ndarray, Figures]:
    """The slates of `fold`, the features of those that hold their target, and the figures of the fit.

    Only the full fit's model is saved. logged: the slates themselves, where no model makes them.
    """
    name = "the retriever" if fold.number == folds.FULL_FIT else f"the retriever of fold {fold.number}"
    counts = statistics.count(fold.training, items)
    check_counts(counts.popularity, fold.allowed, f"the statistics of {name}", folds.FITTED_ON[params.cross_fit])
    if fold.number == folds.FULL_FIT:
        outputs.path("model").mkdir()  # stays empty for a retriever that keeps no weights here; DVC needs the folder all the same
    if logged:
        figures: Figures = {}
        fold_slates = fold.positions
        logged.write(outputs.path("model"))
    else:
        model, figures = retriever.fit(params, fold.training, items.height, params.seed)
        if fold.number == folds.FULL_FIT:
            model.save(outputs.path("model"))
        fold_slates = slates.make(model, fold.positions, interactions, counts, params, fold.number)
    check_out_of_sample(fold_slates, fold.training, name)
    with_target = fold_slates.filter(pl.col("target_rank") >= 0)
    values = feature_values.collect(with_target, params.candidates, counts, params.feature_history, features=features)
    return fold_slates, values, figures
