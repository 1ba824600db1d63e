"""How much a reranker has to gain on Amazon Beauty, or another plain pair: what needs no language model, on the same test slates.

    python bench/slates.py --data FOLDER [--ranker item_knn] [--ranker sasrec]

The stage `retrieve` makes the slates, cross-fitted by folds of users: no training slate comes from a model that saw its target.
With item-kNN (the default) a minute, with SASRec half an hour on two cores. Writes --out, by default bench/results/slates.md.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.beauty import ROOT, name_of, prepare
from bench.retrieval import SASREC
from stages.evaluate.baselines import NAMES, baselines
from stages.evaluate.features import read_features
from stages.shared.core.leakage import training_counts
from stages.shared.slates.slate import load_slates
from stages.shared.stats.bootstrap import Bootstrap, paired_intervals
from stages.shared.stats.metrics import ranks_of_targets, slate_metrics

METRICS = ("recall@1", "recall@5", "ndcg@5")
RANKERS: dict[str, dict[str, Any]] = {
    "item_knn": {"model": "item_knn", "folds": 5},
    "sasrec": {"model": "sasrec", "folds": 3, **SASREC},  # three folds: each is fitted separately
}
SEEDS = (7, 8, 9)  # of LightGBM: the slates are the same
REPORT = ROOT / "bench/results/slates.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, default=ROOT / ".bench")
    parser.add_argument("--ranker", action="append", choices=list(RANKERS), help="the retriever; may be given twice")
    parser.add_argument("--out", type=Path, default=REPORT)
    options = parser.parse_args()
    pair = prepare(options.data, options.scratch)
    rankers = options.ranker or ["item_knn"]
    sections = [line for name in rankers for line in section(name, build_project(name, RANKERS[name], pair))]
    head = [
        f"# Slates of {name_of(options.data)}: what there is to gain",
        "",
        f"`python bench/slates.py --data FOLDER {' '.join(f'--ranker {name}' for name in rankers)}`",
        "",
        "Leave-one-out, ten candidates a slate, cross-fitted by folds of users. Only slates that hold their target count. Beneath each",
        "metric the difference from the initial ranking (incoming) with its 95 % interval (paired bootstrap; every user has one slate).",
        f"LambdaMART (LightGBM, default settings, mean over seeds {', '.join(map(str, SEEDS))}) learns from the training slates alone.",
        "",
    ]
    options.out.write_text("\n".join([*head, *sections]), encoding="utf-8")
    print(options.out.read_text(encoding="utf-8"))


def build_project(name: str, values: dict[str, Any], pair: Path) -> Path:
    """A project with data/retrieve of this retriever, inside that of the pair; made on first use, and again for other parameters."""
    project = pair / f"slates-{name}"
    params = yaml.safe_load((pair / "params.yaml").read_text(encoding="utf-8"))
    params["ingest"] |= {"base_share": 0.6, "min_base": 2}  # as in the profile beauty: what follows has slates
    params["retrieve"] |= {"cross_fit": "folds", "threads": 2, **values}
    text, kept = yaml.safe_dump(params), project / "params.yaml"
    if not (project / "data/retrieve/metrics.json").exists() or kept.read_text(encoding="utf-8") != text:
        (project / "data").mkdir(parents=True, exist_ok=True)
        embed = project / "data/embed"
        if not embed.is_symlink():
            embed.symlink_to((pair / "data/embed").resolve())
        (project / "data/retrieve/metrics.json").unlink(missing_ok=True)  # of other parameters: a run that is stopped leaves none
        kept.write_text(text, encoding="utf-8")
        for stage in ("ingest", "retrieve"):
            subprocess.run([sys.executable, "-m", f"stages.{stage}"], cwd=project, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        items = [pl.read_parquet(folder / "data/ingest/items.parquet") for folder in (pair, project)]
        if not items[0].equals(items[1]):
            sys.exit(f"{pair}: made with other parameters of ingest; remove it and run again")
    return project


def section(name: str, project: Path) -> list[str]:
    slates, feature_table = (pl.read_parquet(project / f"data/retrieve/{table}.parquet") for table in ("slates", "candidate_features"))
    interactions = pl.read_parquet(project / "data/ingest/interactions.parquet")
    figures = json.loads((project / "data/retrieve/metrics.json").read_text(encoding="utf-8"))
    train, test = (load_slates(slates, feature_table, split) for split in ("train", "test"))
    targets = np.array([slate.target_rank for slate in test])
    embeddings = np.load(project / "data/embed/embeddings.npy")
    features, train_features = read_features(feature_table, test), read_features(feature_table, train)
    train_ranks = np.array([slate.target_rank for slate in train])
    counts = training_counts(interactions, len(embeddings), tuple(figures["fitted_on"]))
    values: dict[str, list[dict[str, np.ndarray]]] = {}
    for seed in SEEDS:
        judged = baselines(test, features, train_features, train_ranks, counts, embeddings, seed, 2)
        for ranker in NAMES:
            values.setdefault(ranker, []).append(slate_metrics(ranks_of_targets(judged[ranker].orders, targets)))
    users = np.array([slate.user for slate in test])
    proposed = figures["slates"]["test"]
    lines = [
        f"## Proposed by {name}",
        "",
        f"{len(test):,} of {proposed['slates']:,} test slates hold their target (hit@10 {proposed['hit_rate']:.4f}); "
        f"{len(train):,} training slates.",
        "",
        distance_line(figures["rank_distance"]["train_test"]),
        "",
        "| order | " + " | ".join(METRICS) + " |",
        "|---|" + "---|" * len(METRICS),
    ]
    for ranker, seeds in values.items():
        cells = []
        for metric in METRICS:
            mean = np.mean([seed[metric] for seed in seeds], axis=0)
            diff = mean - values["incoming"][0][metric]
            [(low, high)] = paired_intervals(diff[:, None], Bootstrap(users, 2000, 7))
            cells.append(f"{mean.mean():.4f}" + ("" if ranker == "incoming" else f"<br>{diff.mean():+.4f} [{low:+.4f}, {high:+.4f}]"))
        lines.append(f"| {ranker} | {' | '.join(cells)} |")
    return [*lines, ""]


def distance_line(distance: dict[str, Any]) -> str:
    rank = distance["total_variation"]
    return (
        f"Ranks of targets in training and in test slates: total variation {rank['value']:.3f}; chance alone gives "
        f"{rank['chance_mean']:.3f}, in 95 of 100 draws under {rank['chance_p95']:.3f} (p = {rank['p']:.3f})."
    )


if __name__ == "__main__":
    main()
