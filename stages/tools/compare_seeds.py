"""Training runs of several seeds, summarised: `python -m stages.tools.compare_seeds FOLDER FOLDER ...`.

Each FOLDER is a project whose evaluation is done: a clone trained with another sft.seed and rl.seed.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA
from stages.shared.evaluation.outputs_table import answers_of, read_greedy
from stages.shared.stats.bootstrap import INCOMING, Resampling
from stages.shared.stats.metrics import QUALITY, all_metrics
from stages.shared.stats.multi_seed import over_seeds

METRICS = (*QUALITY, "rank_gain")
COLUMNS = ("slate", "user", "position", "model", "target_rank", "new_rank")
KEY = ["user", "position"]  # a slate's id depends on which slates were made
FEWEST = 100  # common slates


@dataclass(frozen=True)
class Runs:
    """tables: of each run its answers to the common slates. of: how many slates each run has. moved: common slates whose target came in
    at another rank in another run, which only another retriever can do."""

    tables: list[pl.DataFrame]
    paths: list[Path]
    common: int
    of: list[int]
    moved: int


def read_runs(folders: Sequence[Path], fewest: int = FEWEST) -> Runs:
    if len({folder.resolve() for folder in folders}) != len(folders) or len(folders) < 2:
        raise StageError("give two or more folders, each once; a spread over seeds needs runs of several")
    paths = [folder / DATA / "evaluate/outputs.parquet" for folder in folders]
    tables = [read_greedy(path, COLUMNS) for path in paths]
    slates = [table.select(*KEY, "target_rank").unique(KEY) for table in tables]
    common = slates[0].select(KEY)
    for slates_of_run in slates[1:]:
        common = common.join(slates_of_run.select(KEY), on=KEY)
    # Runs with other slates share some by chance; few of them say little about either.
    has_other_slates = any(keys.height != common.height for keys in slates)
    if common.height < (fewest if has_other_slates else 1):
        raise StageError(
            f"{' and '.join(str(folder) for folder in folders)} have {common.height} slates in common, of "
            f"{', '.join(str(keys.height) for keys in slates)}; keep retrieve.seed and all before it, and change sft.seed and rl.seed only"
        )
    ranks = pl.concat([keys.join(common, on=KEY) for keys in slates]).group_by(KEY).agg(pl.col("target_rank").n_unique())
    return Runs(
        [table.join(common, on=KEY) for table in tables],
        paths,
        common.height,
        [keys.height for keys in slates],
        ranks.filter(pl.col("target_rank") > 1).height,
    )


def over_runs(runs: Runs, metric: str, against: str, resampling: Resampling) -> dict[str, Any]:
    """-> {"metric", "against", "slates", "slates_of_runs", "slates_with_another_incoming_rank", "models": {name: seeds.over_seeds of the
    difference from `against`}}, of the models that every run has."""
    names = [table["model"].unique(maintain_order=True).to_list() for table in runs.tables]
    shared = [name for name in names[0] if name != against and all(name in names_of_run for names_of_run in names)]
    if not shared:
        raise StageError(f"no model but '{against}' in all of {', '.join(map(str, runs.paths))}; run the same evaluation in each")
    by_model = {}
    for name in shared:
        values, users = zip(*(_differences(*run, name, against, metric) for run in zip(runs.tables, runs.paths, strict=True)), strict=True)
        by_model[name] = over_seeds(np.stack(values), resampling.of(users[0]))
    return {
        "metric": metric,
        "against": against,
        "slates": runs.common,
        "slates_of_runs": runs.of,
        "slates_with_another_incoming_rank": runs.moved,
        "models": by_model,
    }


def _differences(table: pl.DataFrame, path: Path, model: str, against: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Of each common slate, by user and position: the metric of `model` minus that of `against`, and the user."""
    answers, rival_answers = (answers_of(table, path, name).sort(KEY) for name in (model, against))
    if not answers.select(KEY).equals(rival_answers.select(KEY)):
        raise StageError(f"{path}: the models '{model}' and '{against}' answered different slates; rerun: gr2 run evaluate")
    first, second = (all_metrics(part["new_rank"].to_numpy(), part["target_rank"].to_numpy())[metric] for part in (answers, rival_answers))
    return first - second, answers["user"].to_numpy()


def table(summary: dict[str, Any]) -> list[str]:
    lines = [f"{summary['metric']}, difference from {summary['against']}, on {summary['slates']:,} slates common to all runs"]
    if set(summary["slates_of_runs"]) != {summary["slates"]}:
        lines.append(f"The runs have {', '.join(f'{count:,}' for count in summary['slates_of_runs'])} slates; the others are left out.")
    if moved := summary["slates_with_another_incoming_rank"]:
        lines.append(f"The retrievers differ: on {moved:,} of the slates the target came in at another rank in another run.")
    width = max(len("model"), *map(len, summary["models"]))
    runs = len(summary["slates_of_runs"])
    heads = [*(f"run {place + 1}" for place in range(runs)), "mean", "sd"]
    lines.append(f"{'model':{width}}" + "".join(f"{head:>9}" for head in heads) + "  95 % interval")
    for name, of_seeds in summary["models"].items():
        figures = [*of_seeds["each"], of_seeds["mean"]]
        low, high = of_seeds["ci"]
        cells = "".join(f"{figure:>+9.4f}" for figure in figures) + f"{of_seeds['sd']:>9.4f}"
        lines.append(f"{name:{width}}{cells}  [{low:+.4f}, {high:+.4f}]")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m stages.tools.compare_seeds", description="A metric over runs of several training seeds."
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a project with data/evaluate/outputs.parquet")
    parser.add_argument("--metric", choices=METRICS, default="ndcg@5")
    parser.add_argument("--against", default=INCOMING, help="the ranker the others are compared with")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    try:
        summary = over_runs(read_runs(options.folders), options.metric, options.against, Resampling(options.resamples, options.seed))
    except StageError as error:
        sys.exit(f"compare_seeds: {error}")
    print(json.dumps(summary, indent=2, sort_keys=True) if options.json else "\n".join(table(summary)))


if __name__ == "__main__":
    main()
