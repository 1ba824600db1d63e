"""Held-out test slates: every model and comparator on the same ones, paired with the incoming order; then the report."""

import csv
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from stages.evaluate import judge
from stages.evaluate.audit import audit, identical_to_incoming, invalid_by_kind
from stages.evaluate.bootstrap import summarise
from stages.evaluate.examples import choose_examples
from stages.evaluate.figures import pipeline_figures
from stages.evaluate.lineage import model_lineage
from stages.evaluate.metrics import ranks_of_targets
from stages.evaluate.params import EvaluateParams
from stages.evaluate.report import ReportData, render
from stages.shared.engines.base import Sampling
from stages.shared.errors import StageError
from stages.shared.evidence import EVIDENCE, FACTS
from stages.shared.leaks import check_test_is_later
from stages.shared.outputs import DATA, Outputs, read_json
from stages.shared.params import load_params
from stages.shared.prompts import Catalog, PromptParams, Slate, load_slates
from stages.shared.tables import INTERACTIONS, ITEMS, SIDS, SLATES, read_table

MODELS = {
    "sft_no_reasoning": (DATA / "sft/no_reasoning", False),
    "sft": (DATA / "sft/model", True),
    "rl": (DATA / "rl/model", True),
    "quantized": (DATA / "quantize/model", True),
}
CONTRASTS = (("rl", "sft"), ("rl", "sft_no_reasoning"), ("sft", "sft_no_reasoning"), ("rl", "lambdamart"), ("quantized", "rl"))
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
    leak_check = check_test_is_later(slates_table, read_table(DATA / "ingest/interactions.parquet", INTERACTIONS))
    train = load_slates(slates_table, evidence, "train")
    test = sorted(load_slates(slates_table, evidence, "test"), key=lambda slate: slate.slate)
    test = test[: params.max_slates] if params.max_slates else test
    if not test or len(test[0].candidates) < 2:
        raise StageError("data/prerank/slates.parquet: no test slate of two candidates or more holds its target; nothing can be ranked")

    judged = {
        "incoming": judge.incoming(test),
        "lambdamart": judge.by_lambdamart(
            fact_values(evidence, train), np.array([s.target_rank for s in train]), fact_values(evidence, test), params.seed, params.threads
        ),
    }
    sampling = Sampling(params.max_tokens, seed=params.seed)
    free = {}
    for name, (folder, reasoning) in MODELS.items():
        ask = partial(judge.by_model, folder, reasoning=reasoning, catalog=catalog, options=options)
        judged[name] = ask(test, engine=params.engine, sampling=sampling, threads=params.threads, guided=params.guided)
        if params.guided and params.free_slates:
            alone = ask(test[: params.free_slates], engine=params.engine, sampling=sampling, threads=params.threads, guided=False)
            free[name] = {"n": len(alone.faults), "valid_share": float(alone.valid.mean()), "invalid": invalid_by_kind(alone.faults)}

    targets = np.array([slate.target_rank for slate in test])
    ranks = {name: ranks_of_targets(own.orders, targets) for name, own in judged.items()}
    users = np.array([slate.user for slate in test])
    results = {
        name: {"rank": ranks[name], "valid": own.valid, "identical": identical_to_incoming(own.orders) & own.valid}
        for name, own in judged.items()
    }
    summary = summarise(results, users, params.resamples, params.seed, CONTRASTS)
    audits = {name: audit(own.orders, targets, ranks[name], own.faults) for name, own in judged.items()}
    summary |= {"leak_check": leak_check, "audit": audits, "unguided": free}

    outputs.metrics(summary)
    outputs_table(test, judged, ranks).write_parquet(outputs.path("outputs.parquet"))
    report = ReportData(
        summary=summary,
        curves={name: read_curve(path) for name, path in CURVES.items()},
        codebook_usage=read_json(DATA / "tokenize/usage.json"),
        examples=choose_examples(test, judged["rl"], ranks["rl"], catalog, params.examples, params.seed),
        figures=pipeline_figures(),
        lineage=model_lineage(),
        params=yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8")),
        rank_flow=audits["rl"]["rank_flow"],
        seed=params.seed,
        audits=audits,
        notes=["An output that is no permutation of its slate counts as the incoming order, and as invalid.", *guide_notes(free)],
    )
    outputs.path("report.html").write_text(render(report), encoding="utf-8")


def guide_notes(free: dict[str, dict[str, Any]]) -> list[str]:
    """What constrained decoding hides: how often each model gives a permutation without it."""
    if not free:
        return []
    shares = ", ".join(f"{name} {own['valid_share']:.1%}" for name, own in free.items())
    count = next(iter(free.values()))["n"]
    return [f"Answers are decoded under constraints that leave only permutations. Freely, on {count} of the slates, valid were: {shares}."]


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
