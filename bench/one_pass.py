"""What one pass ranks like, beside the model's own answers, and how long a request takes.

    python bench/one_pass.py FOLDER [--alone 200] [--model FOLDER]

FOLDER: a project whose evaluation is done; --model: of the model that is asked in one pass, where that is another one of the same tables.
Prints a table: NDCG@5 on its test slates with the difference from the initial ranking and its
95 % interval (paired bootstrap over users), of the RL model's recorded answers and of the same model in one pass; and percentiles of
the time of single requests, which bring a history and ten items and no scores. Then the same of mode adaptive, at several margins: the one
pass where its best candidate is so much likelier than the next one, elsewhere the recorded answer.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import polars as pl

from stages.serve.requests import RankRequest
from stages.serve.reranker import MODEL, open_reranker
from stages.shared.evaluation.outputs_table import OUTPUTS
from stages.shared.stats.bootstrap import Bootstrap, paired_interval
from stages.shared.stats.metrics import ranks_of_targets, slate_metrics

RESAMPLES, SEED = 2000, 7
MARGINS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99)  # in probability


def ndcg(orders_NK: np.ndarray, targets_N: np.ndarray) -> np.ndarray:
    return slate_metrics(ranks_of_targets(orders_NK, targets_N))["ndcg@5"]


def interval(diff_N: np.ndarray, users_N: np.ndarray) -> str:
    low, high = paired_interval(diff_N, Bootstrap(users_N, RESAMPLES, SEED))
    return f"{diff_N.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def row(name: str, found_N: np.ndarray, answers_N: np.ndarray, targets_N: np.ndarray, users_N: np.ndarray) -> str:
    initial_N = slate_metrics(targets_N)["ndcg@5"]
    return f"| {name} | {found_N.mean():.3f} | {interval(found_N - initial_N, users_N)} | {interval(found_N - answers_N, users_N)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a project whose evaluation is done")
    parser.add_argument("--alone", type=int, default=200, help="requests that are timed one by one")
    parser.add_argument("--model", type=Path, default=MODEL, help="asked in one pass (default: data/rl/model)")
    options = parser.parse_args()
    os.chdir(options.folder)
    recorded = pl.read_parquet(OUTPUTS).filter((pl.col("model") == "rl") & (pl.col("kind") == "greedy")).sort("slate")
    slates = (
        pl.read_parquet("data/retrieve/slates.parquet")
        .with_columns(pl.col("slate").cast(pl.Int64))
        .join(recorded.select("slate"), on="slate")
    )
    rows = slates.sort("slate").select("history", "candidates", "scores").rows()
    targets, users = recorded["target_rank"].to_numpy(), recorded["user"].to_numpy()
    with open_reranker(options.model, mode="one-pass") as reranker:
        results = reranker.rank([RankRequest(*one) for one in rows])
        orders = np.array([result.order for result in results])
        seconds = []
        for history, candidates, _ in rows[: options.alone]:
            begin = time.perf_counter()
            reranker.rank([RankRequest(history, candidates)])
            seconds.append(time.perf_counter() - begin)
    print(f"{len(rows)} slates of {len(set(users.tolist()))} users\n")
    print("| | NDCG@5 | minus the initial ranking | minus the answers |\n|---|---|---|---|")
    answers, passes = ndcg(np.array(recorded["order"].to_list()), targets), ndcg(orders, targets)
    print(row("answers", answers, answers, targets, users))
    print(row("one pass", passes, answers, targets, users))
    margins = np.array([result.scores[0] - result.scores[1] for result in results])
    for margin in MARGINS:
        sure = margins >= margin
        print(row(f"adaptive, margin {margin:g}: {sure.mean():.0%} in one pass", np.where(sure, passes, answers), answers, targets, users))
    p50, p95, p99 = 1000 * np.percentile(seconds, [50, 95, 99])
    print(f"\n{len(seconds)} single requests, {reranker.threads} thread(s): p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms")


if __name__ == "__main__":
    main()
