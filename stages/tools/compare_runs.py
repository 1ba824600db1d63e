"""Is one run better than another: `python -m stages.tools.compare_runs OLD.parquet NEW.parquet ...` on their outputs.parquet.

Runs that answered the same slates are compared slate by slate. Where the slates differ, so does what there was to gain: then it is the
gains over the initial ranking that are compared, each on its own run's slates.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.shared.core.errors import StageError
from stages.shared.evaluation.outputs_table import answers_of, read_columns, read_greedy
from stages.shared.stats.bootstrap import INCOMING, LEVEL, Resampling, paired_interval
from stages.shared.stats.metrics import QUALITY, all_metrics

Floats = NDArray[np.float64]

COLUMNS = ("slate", "user", "position", "model", "target_rank", "new_rank")
SAME = ["user", "position", "target_rank"]  # two runs with all of these alike, slate for slate, were asked the same
SLATE_COLUMNS = ("slate", "target", "candidates")


@dataclass(frozen=True)
class Run:
    """`answers`: its outputs.parquet; with `content`, the target and the candidates as a text, if its slates.parquet is at hand."""

    name: str
    path: Path
    answers: pl.DataFrame

    @property
    def models(self) -> list[str]:
        return self.answers["model"].unique(maintain_order=True).to_list()


@dataclass(frozen=True)
class Measured:
    """Of one model in one run, a row a slate: `value`, the metric, and `gain`, how far it lies above that of the initial ranking."""

    run: Run
    rows: pl.DataFrame

    @property
    def users(self) -> NDArray[np.generic]:
        return self.rows["user"].to_numpy()

    def of(self, column: str) -> Floats:
        return self.rows[column].to_numpy()


def read_run(name: str, path: Path, slates: Path | None = None) -> Run:
    """`slates`: the run's data/retrieve/slates.parquet, or None; in a project's own folder it is found by itself."""
    answers = read_greedy(path, COLUMNS)
    # In DVC's cache a file lies alone; then the caller names the slates, or the content is not compared.
    same_project = path.parent.parent / "retrieve" / "slates.parquet"
    slates = slates or (same_project if same_project.exists() else None)
    if slates is None:
        return Run(name, path, answers)
    slate_table = read_columns(slates, SLATE_COLUMNS)
    candidates = pl.col("candidates").cast(pl.List(pl.String)).list.join(" ")
    content = slate_table.select(pl.col("slate").cast(pl.Int64), pl.concat_str(pl.col("target"), pl.lit(":"), candidates).alias("content"))
    answers = answers.join(content, on="slate", how="left")
    if answers["content"].null_count():
        raise StageError(f"{path}: it answers slates that {slates} lacks; give each run the slates it was evaluated on")
    return Run(name, path, answers)


def measure(run: Run, model: str, metric: str) -> Measured:
    answers, incoming = (answers_of(run.answers, run.path, name) for name in (model, INCOMING))
    if answers["slate"].to_list() != incoming["slate"].to_list():
        raise StageError(f"{run.path}: the models '{model}' and '{INCOMING}' answered different slates; rerun: gr2 run evaluate")
    value, before = (all_metrics(part["new_rank"].to_numpy(), part["target_rank"].to_numpy())[metric] for part in (answers, incoming))
    return Measured(run, answers.with_columns(pl.Series("value", value), pl.Series("gain", value - before)))


def compare(first: Measured, second: Measured, model: str, metric: str, resampling: Resampling) -> dict[str, Any]:
    """`second` minus `first`: above zero means that `second` is better.

    `paired`: every slate of the run with fewer slates is one of the other's too, and the difference is that of the metric on these.
    Otherwise it is that of the gains over the initial ranking. `n`: the slates it rests on, of both runs where they are not paired.
    """
    has_content = "content" in first.rows.columns and "content" in second.rows.columns
    key = [*SAME, "content"] if has_content else SAME
    common = first.rows.join(second.rows, on=key, suffix="_second")
    sizes = (first.rows.height, second.rows.height)
    # All of the smaller run, and one to one: a pairing of some slates would be a choice that nobody made.
    paired = common.height == min(sizes) and common["slate"].n_unique() == common.height
    if paired:
        diffs = (common["value_second"] - common["value"]).to_numpy()
        diff, (low, high) = float(diffs.mean()), paired_interval(diffs, resampling.of(common["user"].to_numpy()))
    else:
        diff, low, high = unpaired_difference(first, second, resampling)
    return {
        "a": first.run.name,
        "b": second.run.name,
        "model": model,
        "metric": metric,
        "diff": diff,
        "low": low,
        "high": high,
        "paired": paired,
        "n": common.height if paired else sum(sizes),
        "slates": list(sizes),
        "shared": common.height,
        "shared_by": "user, target and candidates" if has_content else "user, place in the history and initial rank",
    }


def unpaired_difference(first: Measured, second: Measured, resampling: Resampling) -> tuple[float, float, float]:
    """The gain of `second` minus that of `first`, with the interval that their two intervals give as independent ones.

    Zou and Donner (2008), Statistics in Medicine 27, 1693: each bound takes from each interval the side that matters. Users in both runs
    are not paired with themselves: they tend to gain in both, so the interval is rather too wide than too narrow.
    """
    (a, low_a, high_a), (b, low_b, high_b) = (_with_interval(measured_run, resampling) for measured_run in (first, second))
    return b - a, b - a - math.hypot(b - low_b, high_a - a), b - a + math.hypot(high_b - b, a - low_a)


def _with_interval(measured_run: Measured, resampling: Resampling) -> tuple[float, float, float]:
    gains = measured_run.of("gain")
    return float(gains.mean()), *paired_interval(gains, resampling.of(measured_run.users))


def compare_all(runs: Sequence[Run], models: Sequence[str], metric: str, resampling: Resampling) -> dict[str, Any]:
    """-> {"metric", "level", "runs": [{"run", "model", "n", "users", "mean", "gain", "low", "high"}], "pairs": [see `compare`]}."""
    rows, pairs = [], []
    for model in models:
        of_runs = [measure(run, model, metric) for run in runs]
        for measured_run in of_runs:
            gain, low, high = _with_interval(measured_run, resampling)
            counts = {"n": measured_run.rows.height, "users": measured_run.rows["user"].n_unique()}
            mean = float(measured_run.of("value").mean())
            rows.append({"run": measured_run.run.name, "model": model, **counts, "mean": mean, "gain": gain, "low": low, "high": high})
        pairs += [compare(of_runs[0], later, model, metric, resampling) for later in of_runs[1:]]
    return {"metric": metric, "level": LEVEL, "runs": rows, "pairs": pairs}


def table(comparison: dict[str, Any]) -> list[str]:
    width = max(len("run"), *(len(row["run"]) for row in comparison["runs"]))
    models = max(len("model"), *(len(row["model"]) for row in comparison["runs"]))
    lines = [f"{comparison['metric']}, and its gain over the initial ranking with a {comparison['level']:.0%} interval"]
    lines.append(f"{'run':{width}}  {'model':{models}}  slates     mean     gain")
    for row in comparison["runs"]:
        interval = f"[{row['low']:+.4f}, {row['high']:+.4f}]"
        lines.append(f"{row['run']:{width}}  {row['model']:{models}}  {row['n']:>6,}  {row['mean']:.4f}  {row['gain']:+.4f} {interval}")
    for pair in comparison["pairs"]:
        verdict = "better" if pair["low"] > 0 else "worse" if pair["high"] < 0 else "no clear difference"
        change = f"{pair['diff']:+.4f} [{pair['low']:+.4f}, {pair['high']:+.4f}] {verdict}"
        lines.append(f"{pair['b']} minus {pair['a']}, {pair['model']}: {change}; {_pairing(pair)}")
    return lines


def _pairing(pair: dict[str, Any]) -> str:
    first, second = pair["slates"]
    shared = f"{pair['shared']:,} slates of the same {pair['shared_by']}"
    return f"paired on {shared}" if pair["paired"] else f"not paired: the gains on {first:,} and {second:,} slates, which share {shared}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.tools.compare_runs", description="Each run against the first.")
    parser.add_argument("outputs", nargs="+", type=Path, metavar="OUTPUTS", help="the outputs.parquet of a run")
    parser.add_argument("--name", action="append", help="what to call a run, once for each (default: the path)")
    parser.add_argument("--slates", action="append", help="a run's slates.parquet, once for each; empty where it is not at hand")
    parser.add_argument("--model", action="append", help="whose answers to compare, repeatable (default: rl)")
    parser.add_argument("--metric", choices=(*QUALITY, "rank_gain"), default="ndcg@5")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    names = options.name or list(map(str, options.outputs))
    slates = options.slates or [""] * len(options.outputs)
    try:
        if not len(options.outputs) == len(names) == len(slates) >= 2:
            raise StageError("give two or more runs; --name and --slates once for each of them, or not at all")
        run_arguments = zip(names, options.outputs, slates, strict=True)
        runs = [read_run(name, path, Path(slates_path) if slates_path else None) for name, path, slates_path in run_arguments]
        comparison = compare_all(runs, options.model or ["rl"], options.metric, Resampling(options.resamples, options.seed))
    except StageError as error:
        sys.exit(f"compare_runs: {error}")
    print(json.dumps(comparison, indent=2) if options.json else "\n".join(table(comparison)))


if __name__ == "__main__":
    main()
