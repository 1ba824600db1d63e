"""Held-out test slates: every model and comparator on the same ones, paired with the incoming order; then the report."""

import csv
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from stages.evaluate import contradiction, judge
from stages.evaluate.audit import audit, identical_to_incoming, invalid_by_kind, lengths, suspicions
from stages.evaluate.bootstrap import summarise
from stages.evaluate.comparators import comparators
from stages.evaluate.examples import choose_examples
from stages.evaluate.figures import pipeline_figures
from stages.evaluate.leak_checks import check_leaks
from stages.evaluate.lineage import model_lineage
from stages.evaluate.metrics import METRICS, all_metrics, ranks_of_targets, slate_metrics
from stages.evaluate.params import EvaluateParams
from stages.evaluate.position_bias import position_bias
from stages.evaluate.report import ReportData, render
from stages.evaluate.slices import by_slice, in_bins, in_quantiles
from stages.evaluate.statistics import significance
from stages.shared.embeddings import read_embeddings
from stages.shared.engines.base import Sampling
from stages.shared.errors import StageError
from stages.shared.evidence import EVIDENCE, FACTS
from stages.shared.leaks import training_counts
from stages.shared.outputs import DATA, Outputs, read_json
from stages.shared.params import load_params
from stages.shared.prompts import Catalog, PromptParams, Slate, load_slates
from stages.shared.tables import INTERACTIONS, ITEMS, SIDS, SLATES, read_table
from stages.shared.world import World, expected, share_of_achievable, whole_histories

MODELS = {
    "sft_no_reasoning": (DATA / "sft/no_reasoning", False),
    "sft": (DATA / "sft/model", True),
    "rl": (DATA / "rl/model", True),
    "quantized": (DATA / "quantize/model", True),
}
CONTRASTS = (
    ("rl", "sft"),
    ("rl", "sft_no_reasoning"),
    ("sft", "sft_no_reasoning"),
    ("rl", "lambdamart"),
    ("rl", "fusion"),
    ("fusion", "lambdamart"),
    ("quantized", "rl"),
)
SUBJECT, REFERENCE = "rl", "sft"  # the model the report is about, and the one its lengths are compared with
SMALLEST_SLICE = 60  # slates; below that an interval covers too seldom
CURVES = {
    "midtrain": DATA / "midtrain/loss.csv",
    "sft": DATA / "sft/loss.csv",
    "no_reasoning": DATA / "sft/no_reasoning_loss.csv",
    "rl": DATA / "rl/steps.csv",
}


def evaluate(params: EvaluateParams, outputs: Outputs) -> None:
    options = load_params("prompt", PromptParams)
    slates_table = read_table(DATA / "prerank/slates.parquet", SLATES)
    evidence = read_table(DATA / "prerank/evidence.parquet", EVIDENCE)
    items = read_table(DATA / "ingest/items.parquet", ITEMS)
    catalog = Catalog.from_tables(read_table(DATA / "tokenize/sids.parquet", SIDS), items)
    interactions = read_table(DATA / "ingest/interactions.parquet", INTERACTIONS)
    leak_check = check_leaks(slates_table, evidence, interactions)
    train = load_slates(slates_table, evidence, "train")
    test = sorted(load_slates(slates_table, evidence, "test"), key=lambda slate: slate.slate)
    test = test[: params.max_slates] if params.max_slates else test
    if not test or len(test[0].candidates) < 2:
        raise StageError("data/prerank/slates.parquet: no test slate of two candidates or more holds its target; nothing can be ranked")

    taken_before = dict(slates_table.select("slate", "position").iter_rows())
    positions = np.array([taken_before[slate.slate] for slate in test])
    users = np.array([slate.user for slate in test])
    candidates = np.array([slate.candidates for slate in test])
    world = World.load(DATA / "ingest/world.safetensors")
    told = whole_histories(interactions, users, positions) if world else []
    counts = training_counts(interactions, items.height)
    judged = comparators(
        test,
        fact_values(evidence, test),
        fact_values(evidence, train),
        np.array([slate.target_rank for slate in train]),
        counts,
        read_embeddings(items.height),
        params.seed,
        params.threads,
        world.log_probabilities(told, candidates) if world else None,
    )
    sampling = Sampling(params.max_tokens, seed=params.seed)
    ask = {
        name: partial(
            judge.by_model,
            folder,
            catalog=catalog,
            options=options,
            engine=params.engine,
            sampling=sampling,
            threads=params.threads,
            reasoning=reasoning,
        )
        for name, (folder, reasoning) in MODELS.items()
    }
    free = {}
    for name in MODELS:
        judged[name] = ask[name](test, guided=params.guided)
        if params.guided and params.free_slates:
            alone = ask[name](test[: params.free_slates], guided=False)
            free[name] = {"n": len(alone.faults), "valid_share": float(alone.valid.mean()), "invalid": invalid_by_kind(alone.faults)}

    targets = np.array([slate.target_rank for slate in test])
    ranks = {name: ranks_of_targets(own.orders, targets) for name, own in judged.items()}
    results = {
        name: {"rank": ranks[name], "valid": own.valid, "identical": identical_to_incoming(own.orders) & own.valid}
        for name, own in judged.items()
    }
    summary = summarise(results, users, params.resamples, params.seed, CONTRASTS, missed_slates(slates_table, set(users.tolist()), params))
    pairs = [(name, "incoming") for name in judged if name not in ("incoming", "oracle")] + list(CONTRASTS)
    audits = {name: audit_of(name, own, judged, test, targets, ranks, catalog, options) for name, own in judged.items()}
    if params.shuffled_slates:
        shuffled = test[: params.shuffled_slates]
        found = position_bias(
            partial(ask[SUBJECT], guided=params.guided), shuffled, params.seed, incoming=judged[SUBJECT].first(len(shuffled))
        )
        audits[SUBJECT]["position_bias"] = found.summary()
    summary |= {
        "leak_check": leak_check,
        "audit": audits,
        "unguided": free,
        "significance": significance(results, users, pairs, params.resamples, params.seed),
        "slices": slices_of(test, positions, ranks, targets, users, counts, items, params),
        "suspicions": {name: suspicions(own) for name, own in audits.items() if name in MODELS},
    }

    if world:
        summary["achievable"] = achievable(judged, world.chances(told, candidates))

    outputs.metrics(summary)
    outputs_table(test, judged, ranks).write_parquet(outputs.path("outputs.parquet"))
    report = ReportData(
        summary=summary,
        curves={name: read_curve(path) for name, path in CURVES.items()},
        codebook_usage=read_json(DATA / "tokenize/usage.json"),
        examples=choose_examples(test, judged[SUBJECT], ranks[SUBJECT], catalog, params.examples, params.seed),
        figures=pipeline_figures(),
        lineage=model_lineage(),
        params=yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8")),
        rank_flow=audits[SUBJECT]["rank_flow"],
        subject=SUBJECT,
        seed=params.seed,
        audits=audits,
        notes=[
            "An output that is no permutation of its slate counts as the incoming order, and as invalid.",
            *guide_notes(free),
            *world_notes(summary),
        ],
    )
    outputs.path("report.html").write_text(render(report), encoding="utf-8")


def missed_slates(slates: pl.DataFrame, measured: set[int], params: EvaluateParams) -> dict[int, int]:
    """user -> test slates in which the retriever missed the target. With max_slates only of the users that were measured."""
    missed = slates.filter((pl.col("split") == "test") & (pl.col("target_rank") < 0)).group_by("user").len().sort("user")
    return {user: count for user, count in missed.iter_rows() if not params.max_slates or user in measured}


def audit_of(
    name: str,
    own: judge.Judged,
    judged: dict[str, judge.Judged],
    slates: list[Slate],
    targets: np.ndarray,
    ranks: dict[str, np.ndarray],
    catalog: Catalog,
    options: PromptParams,
) -> dict[str, Any]:
    """What `own` does to the orders it is given; for a model also what its texts say, and their lengths beside REFERENCE's."""
    found = audit(own.orders, targets, ranks[name], own.faults)
    if name in MODELS:
        reference = judged[REFERENCE]
        found["lengths"] = {"answer": lengths(own.answer_tokens, reference.answer_tokens)}
        if MODELS[name][1]:
            found["lengths"]["reasoning"] = lengths(own.reasoning_tokens, reference.reasoning_tokens)
            checked = contradiction.contradictions(own.texts, own.orders, own.valid, slates, catalog, options)
            found["contradictions"] = contradiction.summary(checked)
    return found


def slices_of(
    slates: list[Slate],
    positions: np.ndarray,
    ranks: dict[str, np.ndarray],
    targets: np.ndarray,
    users: np.ndarray,
    counts: np.ndarray,
    items: pl.DataFrame,
    params: EvaluateParams,
) -> dict[str, list[dict[str, Any]]]:
    """SUBJECT against the incoming order on parts of the slates. `positions`: items that the user took before.

    A target with several categories counts once in each."""
    values, baseline = (all_metrics(ranks[name], targets) for name in (SUBJECT, "incoming"))
    wanted = np.array([slate.candidates[rank] for slate, rank in zip(slates, targets, strict=True)])
    categories = items.sort("item")["categories"].to_list()
    labelled = [(row, category) for row, item in enumerate(wanted.tolist()) for category in categories[item] or ["none"]]
    rows = np.array([row for row, _ in labelled])
    kinds: dict[str, tuple[np.ndarray, list[str]]] = {
        "history_length": (np.arange(len(slates)), in_quantiles(positions, 4)),
        "target_popularity": (np.arange(len(slates)), in_quantiles(counts[wanted], 4)),
        "incoming_rank": (np.arange(len(slates)), in_bins(targets + 1, [1, 2, 4, 6])),
        "category": (rows, [category for _, category in labelled]),
    }
    return {
        kind: by_slice(
            {metric: values[metric][chosen] for metric in METRICS},
            {metric: baseline[metric][chosen] for metric in METRICS},
            users[chosen],
            labels,
            SMALLEST_SLICE,
            params.resamples,
            params.seed,
        )
        for kind, (chosen, labels) in kinds.items()
    }


def guide_notes(free: dict[str, dict[str, Any]]) -> list[str]:
    """What constrained decoding hides: how often each model gives a permutation without it."""
    if not free:
        return []
    shares = ", ".join(f"{name} {own['valid_share']:.1%}" for name, own in free.items())
    count = next(iter(free.values()))["n"]
    return [f"Answers are decoded under constraints that leave only permutations. Freely, on {count} of the slates, valid were: {shares}."]


def achievable(judged: dict[str, judge.Judged], chances: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Where the world's probabilities are known: expected NDCG@5 of every order, free of the luck of the draw, and the share it takes of
    the gain from the incoming order to the Bayes-optimal one. chances [n, K]: of each candidate to be the target."""
    gains = slate_metrics(np.arange(chances.shape[1]))["ndcg@5"]
    values = {name: expected(gains, own.orders, chances) for name, own in judged.items()}
    return {
        name: {"ndcg@5": float(own.mean()), "share": share_of_achievable(own, values["incoming"], values["oracle"])}
        for name, own in values.items()
    }


def world_notes(summary: dict[str, Any]) -> list[str]:
    """What the synthetic world lets one say."""
    shares = {name: own["share"] for name, own in summary.get("achievable", {}).items() if own["share"] is not None}
    if not shares:
        return []
    said = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if name not in ("incoming", "oracle"))
    return [f"The world is synthetic, so the best order is known. Share of the achievable gain in expected NDCG@5: {said}."]


def fact_values(evidence: pl.DataFrame, slates: list[Slate]) -> np.ndarray:
    """The facts of each slate, float32 [n, K, facts], in the order of `slates`."""
    grouped = evidence.sort("slate", "rank").group_by("slate", maintain_order=True).agg(pl.concat_list(list(FACTS)).alias("facts"))
    table = dict(grouped.iter_rows())
    return np.array([table[slate.slate] for slate in slates], dtype=np.float32)


def outputs_table(slates: list[Slate], judged: dict[str, judge.Judged], ranks: dict[str, np.ndarray]) -> pl.DataFrame:
    """One row a slate and ranker: what it answered, so every figure can be recomputed."""
    parts = [
        pl.DataFrame(
            {
                "slate": [slate.slate for slate in slates],
                "user": [slate.user for slate in slates],
                "model": [name] * len(slates),
                "target_rank": [slate.target_rank for slate in slates],
                "new_rank": ranks[name].astype(np.int32),
                "order": own.orders.tolist(),
                "fault": own.faults,
                "text": own.texts,
            }
        )
        for name, own in judged.items()
    ]
    return pl.concat(parts)


def read_curve(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
