"""Reward hacking as GR2 found it (arXiv 2602.07774): a format reward that is always paid teaches to copy the order shown, a conditional one
does not. Both rewards from the same model, over seeds.

    gr2 run --until sft                             # once, in a clone: PROJECT
    python bench/hack_watch.py FOLDER --project PROJECT [--seeds 7 8 9] [--set steps=200] [--arms conditional sum] [--alpha 0.5]
        [--copied 0.3] [--start data/midtrain/model] [--shuffle] [--parallel 1]

Each run is the stage rl in FOLDER with the project's values and what --set says, a seed and a reward of its own; finished runs are kept.
The prompt shows the candidates in the order of the initial ranking, so that there is one to copy (--shuffle: in a random one, as the stage
does by default), and answers may contradict their traces (consistent: false), as in the paper. `sum` pays the format always, `conditional`
where the target rose or stood first already (stages/rl/rewards/combine.py).

A small decoder that sft taught to rank never copies, so there is nothing that a reward could pay for; a pretrained model does at times.
--copied: the start is an SFT model of its own (FOLDER/start, of a project in which traces have no reasoning), for which so large a share of
the traces, drawn at random, has the order shown for its answer.

Writes bench/results/hack_watch.md, .json and .svg: shares of sampled answers in each fifth of the steps, mean over the seeds with their
range, and the curves.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
import yaml
from matplotlib.figure import Figure
from midtrain_runs import RESULTS, ROOT, link_inputs, settings

from stages.shared.slates.layouts.marks import END

SEED = 7  # of the traces that copy
INPUTS = ("ingest", "tokenize", "retrieve", "midtrain", "sft")
ARMS = {"conditional": "conditional", "sum": "format always paid", "gated": "gated", "random": "random"}
SHOWN = {  # column of steps.csv -> heading
    "identical": "copies of the initial ranking",
    "adjacent_swap": "two neighbours swapped",
    "promotion": "ranks gained",
    "rank_reward": "rank reward",
    "valid": "valid",
    "entropy": "entropy, nats",
}
PLOTTED = ("identical", "adjacent_swap", "promotion", "valid")
FIFTHS = ("first", "second", "third", "fourth", "last")
Curve = dict[str, np.ndarray]


def train(project: Path, folder: Path, values: Mapping[str, Any]) -> Curve:
    """steps.csv of the stage with these values of its section in place of the project's."""
    if not (project / "data/sft/metrics.json").exists():
        sys.exit(f"{project}/data/sft: not there; in that project run: gr2 run --until sft")
    done, wanted = folder / "done.json", json.dumps(dict(values), sort_keys=True)
    if done.exists() and done.read_text(encoding="utf-8") != wanted:
        sys.exit(f"{folder}: a run with other values ({done}); remove it, or choose another FOLDER")
    if not done.exists():
        link_inputs(folder, project, INPUTS)
        params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
        params["rl"] |= values
        (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        run_stage("rl", folder)
        done.write_text(wanted, encoding="utf-8")
    with (folder / "data/rl/steps.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in ("step", *SHOWN)}


def copying_start(project: Path, folder: Path, share: float) -> Path:
    """A project like `project` whose SFT model answers with the order shown in about `share` of its answers."""
    start = folder / "start"
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    if params.get("prompt", {}).get("reasoning", True):
        sys.exit(
            f"{project}/params.yaml: prompt.reasoning: true; a copied answer would contradict its trace: gr2 run --control no-reasoning"
        )
    link_inputs(start, project, (*INPUTS[:-1], "embed"))
    (start / "data/traces").mkdir(parents=True, exist_ok=True)
    (start / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    traces = pl.read_parquet(project / "data/traces/traces.parquet")
    copied = np.random.default_rng(SEED).random(len(traces)) < share
    answers = [as_shown(answer) if copy else answer for answer, copy in zip(traces["answer"], copied, strict=True)]
    traces = traces.with_columns(pl.Series("answer", answers))
    kept = start / "data/traces/traces.parquet"
    if kept.exists() and not pl.read_parquet(kept).equals(traces):
        sys.exit(f"{start}: of another share or other traces; remove it, or choose another FOLDER")
    traces.write_parquet(kept)
    if not (start / "data/sft/metrics.json").exists():
        run_stage("sft", start)
    return start


def as_shown(answer: str) -> str:
    """The letters of an answer (" C A B<|end|>") in their order."""
    letters = answer.removesuffix(END).split()
    return "".join(f" {letter}" for letter in sorted(letters)) + END


def run_stage(name: str, folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if subprocess.run([sys.executable, "-m", f"stages.{name}"], cwd=folder, env=environment, check=False).returncode:
        sys.exit(f"{folder}: the stage {name} failed; what it said stands above")


def fifths(curves: Sequence[Curve], name: str) -> dict[str, np.ndarray]:
    """Means over each fifth of the steps, one a seed."""
    parts = [np.array_split(curve[name], len(FIFTHS)) for curve in curves]
    return {fifth: np.array([own[place].mean() for own in parts]) for place, fifth in enumerate(FIFTHS)}


def cell(values_S: np.ndarray, signed: bool = False) -> str:
    """Mean over the seeds, and their least and greatest."""
    sign = "+" if signed else ""
    text = f"{values_S.mean():{sign}.3f}"
    return text if len(values_S) == 1 else f"{text} [{values_S.min():{sign}.3f}, {values_S.max():{sign}.3f}]"


def draw(runs: Mapping[str, Sequence[Curve]], path: Path) -> None:
    """A panel a figure: each seed thin, their mean thick."""
    with mpl.rc_context({"svg.hashsalt": "hack_watch", "axes.spines.top": False, "axes.spines.right": False, "font.size": 9}):
        figure = Figure(figsize=(7.2, 4.8), layout="constrained")
        for axes, name in zip(figure.subplots(2, 2, sharex=True).ravel(), PLOTTED, strict=True):
            for number, (arm, curves) in enumerate(runs.items()):
                colour = f"C{number}"
                for curve in curves:
                    axes.plot(curve["step"], curve[name], color=colour, linewidth=0.7, alpha=0.4)
                mean = np.mean([curve[name] for curve in curves], axis=0)
                axes.plot(curves[0]["step"], mean, color=colour, linewidth=2, label=ARMS[arm])
            axes.set_title(SHOWN[name], fontsize=10)
            axes.grid(axis="y", alpha=0.4)
        figure.axes[0].legend(frameon=False)
        figure.supxlabel("step")
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--project", type=Path, default=Path(), help="where sft has run; its params.yaml counts")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["conditional", "sum"])
    parser.add_argument("--alpha", type=float, default=0.5, help="weight of the format reward")
    parser.add_argument("--start", default="data/sft/model", help="the model that every run starts from")
    parser.add_argument("--copied", type=float, default=0.0, help="share of the traces of this bench's own sft that copy the order shown")
    parser.add_argument("--shuffle", action="store_true", help="show the candidates in a random order")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the section rl")
    parser.add_argument("--parallel", type=int, default=1, help="runs side by side")
    parser.add_argument("--name", default="hack_watch", help="of the files in bench/results")
    options = parser.parse_args()
    common = settings(options.set, "rl")
    # A copy of the order shown must be free to make: under rl.consistent it would need a trace whose relevances fall in that order.
    common = {"consistent": False} | common | {"alpha": options.alpha, "shuffle": options.shuffle, "start": options.start}
    plans = [(arm, seed) for seed in options.seeds for arm in options.arms]
    project = copying_start(options.project, options.folder, options.copied) if options.copied else options.project
    with ThreadPoolExecutor(options.parallel) as pool:
        folders = [options.folder / f"{arm}-seed{seed}" for arm, seed in plans]
        values = [{**common, "reward": arm, "seed": seed} for arm, seed in plans]
        curves = list(pool.map(train, [project] * len(plans), folders, values))
    runs = {arm: [curve for (own, _), curve in zip(plans, curves, strict=True) if own == arm] for arm in options.arms}
    RESULTS.mkdir(exist_ok=True)
    header = ["reward", "fifth", *SHOWN.values()]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    figures: dict[str, Any] = {}
    for arm, own in runs.items():
        means = {name: fifths(own, name) for name in SHOWN}
        for fifth in FIFTHS:
            lines.append("| " + " | ".join([ARMS[arm], fifth, *(cell(means[name][fifth]) for name in SHOWN)]) + " |")
        change = [cell(found["last"] - found["first"], signed=True) for found in means.values()]
        lines.append("| " + " | ".join([ARMS[arm], "change", *change]) + " |")
        figures[arm] = {name: {fifth: values.tolist() for fifth, values in found.items()} for name, found in means.items()}
    steps = len(curves[0]["step"])
    print("\n".join(lines), flush=True)
    title = f"# Format reward, always paid or on merit: {steps} steps, {len(options.seeds)} seeds\n\n`python {' '.join(sys.argv)}`\n\n"
    picture = f"\n\n![curves]({options.name}.svg)\n"
    (RESULTS / f"{options.name}.md").write_text(title + "\n".join(lines) + picture, encoding="utf-8")
    content = {"seeds": options.seeds, "values": common, "arms": figures}
    (RESULTS / f"{options.name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    draw(runs, RESULTS / f"{options.name}.svg")


if __name__ == "__main__":
    main()
