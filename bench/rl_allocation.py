"""What each way of spending rollouts (rl.allocation) is worth: RL from one SFT model at the same number of rollouts, over seeds, one table.

    gr2 run --until sft --profile world              # once, in a clone: PROJECT
    python bench/rl_allocation.py FOLDER --project PROJECT [--seeds 7 8 9] [--steps 30] [--arms d3s dump ...] [--slates 0]
        [--set rl.lr=2e-5] [--name rl_allocation]

Each run is the stage rl in FOLDER/ARM-seedN with the project's parameters, what --set says, and the arm's. Steps are not refilled, so every
arm samples steps * prompts * group answers; what it learns from of them is in the table. Finished runs and their answers are kept: the
command goes on where it was stopped. Every model answers the test slates greedily, as the section evaluate says; an answer that is no
permutation counts as the initial ranking. In the synthetic world NDCG@5 is the expected one, by the world's own probabilities, which is
free of the luck of the draw; elsewhere it is that of the targets. Intervals (95 %) are over seeds and users, of differences on the same
slates, seed by seed; of one seed, over users.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from language_model_arms import Runs, ask, merged, seconds, settings
from midtrain_runs import write_lines
from numpy.typing import NDArray

from stages.evaluate.params import EvaluateParams
from stages.shared.core.params import load_params
from stages.shared.evaluation.ground_truth import load_ground_truth
from stages.shared.evaluation.test_set import load_test_set, read_slate_tables
from stages.shared.stats.bootstrap import Bootstrap, paired_interval
from stages.shared.stats.metrics import ranks_of_targets, slate_metrics
from stages.shared.stats.multi_seed import over_seeds
from stages.shared.synthetic.world import expected

PLAIN = "plain"
ARMS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "d3s": {"d3s_share": 0.5},
    "d3s_tokens": {"d3s_share": 0.5, "d3s_tokens": 0.5},
    "d3s_across": {"d3s_share": 0.5, "d3s_across": True},
    "prof": {"prof_share": 0.75},
    "knapsack": {"knapsack_most": 24},
    "dump": {"dump": True},
    "relift": {"relift_batch": 8},
    "together": {"d3s_share": 0.75, "d3s_across": True, "prof_share": 0.75, "knapsack_most": 24, "knapsack_least": 4, "dump": True},
}
INPUTS = ("ingest", "embed", "tokenize", "retrieve", "traces", "sft")
BOOTSTRAP = 2000, 7


class RlRuns(Runs):
    """The stage rl, and answers, in folders of their own."""

    inputs = INPUTS
    remedy = "gr2 run --until sft --profile world"

    def answers(self, arm: str, values: Mapping[str, Any] | None = None) -> Path:
        """Of the SFT model, or of what the arm makes of it."""
        folder = self.prepare(arm, values or {})
        if values is not None:
            self.stage(folder, "rl")
        self.command(folder, "answers", [sys.executable, __file__, "--ask", "sft" if values is None else "rl"])
        return folder


def ndcg(folder: Path, known: Mapping[str, NDArray[np.int_]] | None = None) -> tuple[NDArray[np.int_], dict[str, NDArray[np.float64]]]:
    """In a run's folder: the users of the test slates [n], and NDCG@5 of the initial ranking, of its answers and of the orders in `known`
    [n]; in the synthetic world the expected one, and that of the best order, too."""
    with contextlib.chdir(folder):
        tests = load_test_set(read_slate_tables(), load_params("evaluate", EvaluateParams).max_slates)
        orders = np.array(json.loads(Path("answers.json").read_text(encoding="utf-8"))["orders"])
        truth = load_ground_truth(tests)
        ranked = {"incoming": np.tile(np.arange(orders.shape[1]), (len(orders), 1)), "model": orders, **(known or {})}
        if truth is None:
            return tests.users, {name: slate_metrics(ranks_of_targets(of, tests.targets))["ndcg@5"] for name, of in ranked.items()}
        gains = slate_metrics(np.arange(orders.shape[1]))["ndcg@5"]
        ranked["best"] = np.argsort(-truth.chances_NK, axis=1, kind="stable")
        return tests.users, {name: expected(gains, of, truth.chances_NK) for name, of in ranked.items()}


def interval(difference_SN: NDArray[np.float64], users: NDArray[np.int_]) -> dict[str, Any]:
    draws = Bootstrap(users, *BOOTSTRAP)
    if len(difference_SN) > 1:
        return over_seeds(difference_SN, draws)
    return {"seeds": 1, "mean": float(difference_SN.mean()), "ci": list(paired_interval(difference_SN[0], draws))}


def valid_share(folder: Path) -> float:
    """Of a run's test answers."""
    faults = json.loads((folder / "answers.json").read_text(encoding="utf-8"))["faults"]
    return 1 - sum(map(bool, faults)) / len(faults)


def spent(folder: Path) -> dict[str, float]:
    """Of a run: answers learnt from, traces taken, the stage's seconds, and the share of valid test answers."""
    curve = pl.read_csv(folder / "data/rl/steps.csv")
    traces = float(curve["sft_traces"].sum()) if "sft_traces" in curve.columns else 0.0
    return {"learnt": float(curve["learnt"].sum()), "traces": traces, "seconds": seconds(folder, "rl"), "valid": valid_share(folder)}


def shown(figures: Mapping[str, Any]) -> str:
    low, high = figures["ci"]
    return f"{figures['mean']:+.4f} [{low:+.4f}, {high:+.4f}]"


def table(base: Path, folders: Mapping[str, Sequence[Path]], rollouts: int) -> tuple[list[str], dict[str, Any]]:
    users, start = ndcg(base)
    found_SN = {arm: np.stack([ndcg(folder)[1]["model"] for folder in own]) for arm, own in folders.items()}
    lines = ["| arm | NDCG@5 | minus SFT | minus plain RL | answers learnt from | traces | valid | seconds a run |", "|" + "---|" * 8]
    lines += [f"| {name} | {values.mean():.4f} |" + " |" * 6 for name, values in (("incoming", start["incoming"]), ("sft", start["model"]))]
    figures: dict[str, Any] = {"sft": {"ndcg@5": float(start["model"].mean())}, "rollouts": rollouts}
    for arm, values_SN in found_SN.items():
        against = {"sft": interval(values_SN - start["model"], users)}
        if arm != PLAIN:
            against[PLAIN] = interval(values_SN - found_SN[PLAIN], users)
        runs = [spent(folder) for folder in folders[arm]]
        means = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
        cells = [f"{values_SN.mean():.4f}", *(shown(against[other]) if other in against else "" for other in ("sft", PLAIN))]
        cells += [f"{means['learnt']:,.0f} of {rollouts:,}", f"{means['traces']:.0f}", f"{means['valid']:.1%}", f"{means['seconds']:.0f}"]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
        figures[arm] = {"ndcg@5": float(values_SN.mean()), **{f"minus {other}": entry for other, entry in against.items()}, **means}
    return [*lines, "", f"{len(users):,} test slates of {len(np.unique(users)):,} users."], figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--project", type=Path, default=Path(), help=f"with data/{', '.join(INPUTS)}; its params.yaml counts")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9], help="of the stage rl")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), help=f"beside {PLAIN}, which is always run")
    parser.add_argument("--slates", type=int, default=0, help="of the test split, the first by user; 0 = all")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--name", default="rl_allocation", help="of the two files in bench/results")
    parser.add_argument("--ask", choices=["sft", "rl"], help=argparse.SUPPRESS)  # what the script calls itself with
    options = parser.parse_args()
    if options.ask:
        return ask(options.ask)
    if not options.folder:
        parser.error("FOLDER is missing")
    values = merged(settings(options.set), {"evaluate": {"max_slates": options.slates}})
    runs = RlRuns(options.folder, options.project, values)
    base = runs.answers("sft")
    arms = list(dict.fromkeys([PLAIN, *options.arms]))
    folders: dict[str, list[Path]] = {arm: [] for arm in arms}
    for seed in options.seeds:
        for arm in arms:
            # Refills and kept surplus would let one arm sample more than another.
            same = {"seed": seed, "steps": options.steps, "max_refills": 0, "keep_surplus": False}
            folders[arm].append(runs.answers(f"{arm}-seed{seed}", {"rl": {**same, "allocation": ARMS[arm]}}))
    rl = yaml.safe_load((folders[PLAIN][0] / "params.yaml").read_text(encoding="utf-8"))["rl"]
    lines, figures = table(base, folders, options.steps * rl["prompts"] * rl["group"] * rl.get("processes", 1))
    write_lines(options.name, "Ways of spending the rollouts of RL", lines, figures)
    return None


if __name__ == "__main__":
    main()
