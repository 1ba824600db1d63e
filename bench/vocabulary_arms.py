"""Three ways to start the rows of new tokens (midtrain.new_rows), on a pretrained model, over seeds: one table.

    gr2 run --until tokenize --profile smoke        # once, in a clone: PROJECT
    python bench/vocabulary_arms.py FOLDER --project PROJECT [--seeds 7 8 9] [--users 200] [--set steps=60] [--name vocabulary_arms]

Each run is mid-training in FOLDER with the values below, the project's others, and what --set says; finished runs are kept. Columns:
full-catalogue recall and NDCG of the first item after the base history of --users users by beam search over the trie, and its difference
from `random`, with intervals over seeds and users; perplexity on ordinary text kept back, of the checkpoint, with its new rows before the
first step, and after the last one; and for how many users the model writes the SID of an item without the trie.

With steps=60 a run of SmolLM2 trains on 60 * 2 * 2 * 128 = 31,000 tokens: what a start is worth shows best early.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from midtrain_runs import Trained, interval, settings, shown, train, write

ARMS = ("words", "codebook", "random")
VALUES: dict[str, Any] = {
    "model": "infra/models/smollm2-135m",
    "steps": 60,
    "batch_size": 2,
    "processes": 2,
    "row_length": 128,
    "optimizer": "adamw",
    "lr": 2e-4,
    "schedule": "cosine",
    # No practice of the layout: all rows are for SIDs and language.
    "sorting_share": 0.0,
    "judging_share": 0.0,
    "sequence_share": 0.5,
    "caption_share": 0.25,
    "preference_share": 0.05,
    "persona_share": 0.1,
    "replay_share": 0.1,
}


def row(arm: str, runs: dict[str, list[Trained]]) -> list[str]:
    own, others = runs[arm], runs["random"]
    cells = [arm, *(shown(interval(own, metric, cut)) for metric, cut in (("recall", 5), ("recall", 10), ("ndcg", 10)))]
    cells.append("" if arm == "random" else shown(interval(own, "recall", 10, others), signed=True))
    for when in ("before", "extended", "after"):
        fits = [run.metrics["text"][when] for run in own]
        cells.append(f"{np.mean([fit['perplexity'] for fit in fits]):.2f} ({np.mean([fit['bits_per_byte'] for fit in fits]):.3f})")
    free = [float((run.found.free_B >= 0).mean()) for run in own]
    return [*cells, f"{np.mean(free):.1%}", f"{np.mean([run.metrics['probes']['caption_to_sid_exact'] for run in own]):.1%}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--project", type=Path, default=Path(), help="with data/ingest and data/tokenize; its params.yaml counts")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the section midtrain")
    parser.add_argument("--name", default="vocabulary_arms", help="of the two files in bench/results")
    options = parser.parse_args()
    values = VALUES | settings(options.set)
    runs: dict[str, list[Trained]] = {arm: [] for arm in ARMS}
    for seed in options.seeds:
        for arm in ARMS:
            folder = options.folder / f"{arm}-seed{seed}"
            runs[arm].append(train(options.project, folder, {**values, "new_rows": arm, "seed": seed}, options.users))
    header = [
        "new rows",
        "R@5",
        "R@10",
        "NDCG@10",
        "R@10 minus random",
        *(f"perplexity (bits/byte) {w}" for w in ("before", "extended", "after")),
    ]
    header += ["free SIDs valid", "title to whole SID"]
    figures = {
        arm: {"seconds": [run.seconds for run in own], "metrics": [run.metrics for run in own], "recall@10": interval(own, "recall", 10)}
        for arm, own in runs.items()
    }
    title = "Where the rows of new tokens start"
    write(options.name, title, header, [row(arm, runs) for arm in ARMS], {"values": values, "seeds": options.seeds, "arms": figures})


if __name__ == "__main__":
    main()
