"""What RL adds where traces are few: SFT on the traces of N slates, RL from there on all training slates, over seeds, one table.

    gr2 run --until traces --profile world           # once, in a clone: PROJECT
    python bench/few_traces.py FOLDER --project PROJECT [--slates-taught 30 100 0] [--seeds 7 8 9] [--set rl.steps=100] [--test-slates 0]
        [--rewards target expected] [--name few_traces]

A trace costs a teacher, a reward costs nothing: SFT sees N slates drawn at random of those with traces (0: all of them), RL every training
slate of the project with its verifiable reward, and the same N traces where it takes any. Each run is the stage sft and then rl in
FOLDER/sft-N-seedS and rl-N-seedS with the project's parameters, what --set says, and the seed; finished runs and their answers are kept.
--rewards expected: in the synthetic world, RL whose rank reward is the expected one, by the world's own probabilities of the candidates
(rl.relevances, world_relevances.py), in rl-N-expected-seedS: what it learns beyond the reward of the one target is what luck hides, what it
does not learn either is no matter of signal.
NDCG@5 as in rl_allocation.py: in the synthetic world the expected one, and what share of the best order's gain over the initial ranking
SFT and RL have. LambdaMART learns from the same training slates: the six features, and all that
prompts quote. Intervals (95 %) over seeds and users, of
differences on the same slates, seed by seed.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from language_model_arms import KNOWN, Runs, known_rankers, merged, seconds, settings
from midtrain_runs import link_inputs, write_lines
from numpy.typing import NDArray
from rl_allocation import interval, ndcg, shown, valid_share
from world_relevances import write_world_relevances

from stages.shared.synthetic.world import share_of_headroom

TARGET, EXPECTED = REWARDS = "target", "expected"
BESIDE_TARGETS = "minus RL on targets"
Floats = NDArray[np.float64]
ASK = Path(__file__).with_name("rl_allocation.py")


class FewTraces(Runs):
    """sft, rl and their answers, in folders of their own."""

    inputs = ("ingest", "embed", "tokenize", "retrieve", "midtrain")
    remedy = "gr2 run --until traces --profile world"

    def made_in_project(self, folder: Path, name: str) -> bool:
        """Never: what the project has saw other traces, whatever its parameters."""
        return False

    def taught(self, slates: int, seed: int) -> Path:
        """The folder of the SFT model of this many slates."""
        folder = self.prepare(f"sft-{slates or 'all'}-seed{seed}", {"sft": {"seed": seed}})
        made = folder / "data/traces"
        made.mkdir(exist_ok=True)
        if not (made / "traces.parquet").exists():
            traces = pl.read_parquet(self.project / "data/traces/traces.parquet")
            every = np.sort(traces["slate"].unique().to_numpy())
            chosen = np.random.default_rng(seed).permutation(every)[: slates or len(every)]
            traces.filter(pl.col("slate").is_in(chosen)).write_parquet(made / "traces.parquet")
        self.stage(folder, "sft")
        self.command(folder, "answers", [sys.executable, str(ASK), "--ask", "sft"])
        return folder

    def rewarded(self, start: Path, slates: int, reward: str, seed: int) -> Path:
        """The folder of what RL makes of the SFT model in `start`. reward: of REWARDS."""
        name, values = f"rl-{slates or 'all'}", {"seed": seed}
        if reward == EXPECTED:
            table = self.folder / "relevances.parquet"
            if not table.exists():
                write_world_relevances(self.project, table)
            name, values = f"{name}-{reward}", {**values, "relevances": str(table)}
        folder = self.prepare(f"{name}-seed{seed}", {"rl": values})
        link_inputs(folder, start, ("traces", "sft"))
        self.stage(folder, "rl")
        self.command(folder, "answers", [sys.executable, str(ASK), "--ask", "rl"])
        return folder


def differences(
    sft_SN: Floats, rl_SN: Floats, known: Mapping[str, Floats], on_targets_SN: Floats | None, users: NDArray[np.int_]
) -> dict[str, dict[str, Any]]:
    """Heading of a column -> the interval of that difference in NDCG@5. on_targets_SN: of RL on the reward of the targets, from the same
    models; None where this is that RL."""
    pairs = {"RL minus SFT": rl_SN - sft_SN}
    for name, heading in KNOWN.items():
        if name in known:
            pairs |= {f"SFT minus {heading}": sft_SN - known[name], f"RL minus {heading}": rl_SN - known[name]}
    if on_targets_SN is not None:
        pairs[BESIDE_TARGETS] = rl_SN - on_targets_SN
    return {heading: interval(values_SN, users) for heading, values_SN in pairs.items()}


def table(runs: Mapping[tuple[int, str], Sequence[tuple[Path, Path]]]) -> tuple[list[str], dict[str, Any]]:
    """runs: (slates taught, reward) -> the folders of SFT and of RL, one pair a seed."""
    tests, known_orders = known_rankers(next(iter(runs.values()))[0][1])
    lines: list[str] = []
    figures: dict[str, Any] = {}
    found_SN = {key: np.stack([ndcg(rl)[1]["model"] for _, rl in pairs]) for key, pairs in runs.items()}
    for (slates, reward), pairs in runs.items():
        users, first = ndcg(pairs[0][0], known_orders)
        rl_SN, sft_SN = found_SN[slates, reward], np.stack([ndcg(sft)[1]["model"] for sft, _ in pairs])
        beside = found_SN.get((slates, TARGET)) if reward != TARGET else None
        gains = differences(sft_SN, rl_SN, first, beside, users)
        bounds = [first[name].mean() for name in ("incoming", "best") if name in first]  # the best order is known in the world alone
        shares = [share_of_headroom(values_SN.mean(), *bounds) for values_SN in (sft_SN, rl_SN)] if len(bounds) > 1 else []
        valid = [float(np.mean([valid_share(pair[place]) for pair in pairs])) for place in (0, 1)]
        means = {**{name: first[name].mean() for name in known_orders}, "sft": sft_SN.mean(), "rl": rl_SN.mean()}
        cells = {"slates with traces": str(slates or "all"), "reward of": reward}
        cells |= {KNOWN.get(name, name.upper()): f"{value:.4f}" for name, value in means.items()}
        cells |= {BESIDE_TARGETS: ""} | {heading: shown(gain) for heading, gain in gains.items()}
        cells["share of the achievable, SFT, RL"] = ", ".join(f"{share:.2f}" for share in shares if share is not None)
        cells["valid, SFT, RL"] = ", ".join(f"{share:.1%}" for share in valid)
        cells["RL, seconds"] = f"{np.mean([seconds(rl, 'rl') for _, rl in pairs]):.0f}"
        lines = lines or ["| " + " | ".join(cells) + " |", "|" + "---|" * len(cells)]
        lines.append("| " + " | ".join(cells.values()) + " |")
        named = cells["slates with traces"] if reward == TARGET else f"{cells['slates with traces']} {reward}"
        figures[named] = means | {"share": shares, "valid": valid} | gains
    counts = f"{len(tests.slates):,} test slates of {len(np.unique(tests.users)):,} users; {len(next(iter(runs.values())))} seeds."
    return [*lines, "", counts], figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--project", type=Path, default=Path(), help="with data up to traces; its params.yaml counts")
    parser.add_argument("--slates-taught", type=int, nargs="+", default=[30, 100, 0], help="slates whose traces SFT sees; 0 = all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9], help="of sft, of rl, and of the choice of slates")
    parser.add_argument("--test-slates", type=int, default=0, help="of the test split, the first by user; 0 = all")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--rewards", nargs="+", choices=REWARDS, default=[TARGET], help="what the rank reward counts")
    parser.add_argument("--name", default="few_traces", help="of the two files in bench/results")
    options = parser.parse_args()
    values = merged(settings(options.set), {"evaluate": {"max_slates": options.test_slates}})
    work = FewTraces(options.folder, options.project, values)
    runs: dict[tuple[int, str], list[tuple[Path, Path]]] = {}
    for seed in options.seeds:
        for slates in options.slates_taught:
            start = work.taught(slates, seed)
            for reward in options.rewards:
                runs.setdefault((slates, reward), []).append((start, work.rewarded(start, slates, reward, seed)))
    lines, figures = table(runs)
    write_lines(options.name, "RL where traces are few, NDCG@5", lines, figures)


if __name__ == "__main__":
    main()
