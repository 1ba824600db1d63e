"""Prints the README's table of the last run from data/report/metrics.json: python bench/results_table.py"""

import json
from pathlib import Path

METRICS = ("recall@1", "recall@3", "recall@5", "ndcg@5")


def main() -> None:
    summary = json.loads(Path("data/report/metrics.json").read_text(encoding="utf-8"))
    models = summary["models"]
    print(f"n = {summary['slates']} test slates of {summary['users']} users; difference from the initial ranking, 95 % interval\n")
    print("| model | R@1 | R@3 | R@5 | NDCG@5 | NDCG@5 difference | valid | identical |")
    print("|---|---|---|---|---|---|---|---|")
    for name, row in models.items():
        means = " | ".join(f"{row[metric]['mean']:.3f}" for metric in METRICS)
        low, high = row["ndcg@5"]["diff_ci"]
        change = "" if name == "incoming" else f"{row['ndcg@5']['diff']:+.3f} [{low:+.3f}, {high:+.3f}]"
        print(f"| {name} | {means} | {change} | {100 * row['valid_share']:.1f} % | {100 * row['identity_share']:.1f} % |")
    print("\n| contrast, NDCG@5 | difference [95 %] |\n|---|---|")
    for name, row in summary["contrasts"].items():
        low, high = row["ndcg@5"]["diff_ci"]
        print(f"| {name} | {row['ndcg@5']['diff']:+.3f} [{low:+.3f}, {high:+.3f}] |")


if __name__ == "__main__":
    main()
