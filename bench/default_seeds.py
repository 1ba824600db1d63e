"""The default profile over training seeds and stand-ins for another machine, summarised over runs and users.

    python bench/default_seeds.py FOLDER [--seeds 7 8 9] [--levels "" default] [--profile default] [--set KEY=VALUE]

Each run is a clone of this commit in FOLDER: midtrain.seed, sft.seed and rl.seed are its own, retrieve.seed and all before it stay, so
every run answers the same slates. A level is a value of ATEN_CPU_CAPABILITY: with `default` torch computes without AVX, and rounds as
another processor would; "" is this machine as it is. Finished runs are kept: the command goes on where it was stopped.

Writes bench/results/default_seeds.json and .md: each run's NDCG@5 minus the initial ranking, the mean with its interval over runs and
users (stages/tools/compare_seeds.py), and validity, contradictions and changed first choices of each run.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.shared.stats.bootstrap import Resampling
from stages.tools.compare_seeds import over_runs, read_runs, table
from tasks.project.profiles import render

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench/results"
SEEDED = ("midtrain", "sft", "rl")
PAIRS = (
    ("incoming", "the initial ranking"),
    ("lambdamart", "LambdaMART"),
    ("lambdamart_all_features", "LambdaMART on all features"),  # only where there are more than the six (prompt.more_features)
    ("sft", "SFT"),
)


def run(folder: Path, seed: int, level: str, profile: str, sets: Sequence[str], upstream: Path | None) -> float:
    """One clone, all stages; the seconds it took, from its own note where it is done already. upstream: a clone whose cache it may read."""
    note = folder / ".seconds"
    if note.exists():
        return float(note.read_text())
    if not folder.exists():
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        if upstream:  # the stages before mid-training are the same in all runs of a level
            cache = folder / ".dvc/config.local"
            cache.write_text(f"[cache]\n    dir = {upstream / '.dvc/cache'}\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(folder)} | ({"ATEN_CPU_CAPABILITY": level} if level else {})
    values = [f"{stage}.seed={seed}" for stage in SEEDED] + list(sets)
    options = [part for value in values for part in ("--set", value)]
    (folder / "params.yaml").write_text(render(ROOT, profile), encoding="utf-8")
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "flows.cli", "run", *options], cwd=folder, env=environment, check=True)
    seconds = time.monotonic() - started
    note.write_text(f"{seconds:.1f}")
    return seconds


def behaviour(folder: Path) -> dict[str, float]:
    """What the SFT and the RL model of one run do beyond their score."""
    report = json.loads((folder / "data/report/metrics.json").read_text(encoding="utf-8"))
    figures: dict[str, float] = {}
    for name in ("sft", "rl", "quantized"):
        kinds = report["audit"][name]["contradictions"]["kinds"]
        figures[f"{name}: valid"] = report["models"][name]["valid_share"]
        figures[f"{name}: answer against its relevances"] = kinds["relevances_disagree"]["share"]
        figures[f"{name}: misquotes"] = kinds["misquotes"]["share"]
    bias: dict[str, Any] = report["audit"]["rl"].get("position_bias", {})
    return figures | {"rl: first choice changed by shuffling": bias.get("first_changed_share", float("nan"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--levels", nargs="+", default=["", "default"])
    parser.add_argument("--profile", default="default")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--name", default="default_seeds", help="of the two files in bench/results")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    folders: list[Path] = []
    rows = []
    for level in options.levels:
        first: Path | None = None
        for seed in options.seeds:
            folder = (options.folder / f"seed{seed}{'-' + level if level else ''}").resolve()
            seconds = run(folder, seed, level, options.profile, options.set, first)
            first = first or folder
            folders.append(folder)
            rows.append({"seed": seed, "level": level or "as it is", "seconds": seconds, **behaviour(folder)})
            write(options.name, ["FOLDER", *sys.argv[2:]], folders, rows)


def write(name: str, command: Sequence[str], folders: Sequence[Path], rows: Sequence[dict[str, Any]]) -> None:
    resampling = Resampling(2000, 7)
    words = " ".join(word or '""' for word in command)
    lines = [f"# Runs of several seeds\n\n`python bench/default_seeds.py {words}`; run n of the tables below is row n here.\n"]
    heads = list(rows[0])
    lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += [
        "| " + " | ".join(f"{row[head]:.3f}" if isinstance(row[head], float) else str(row[head]) for head in heads) + " |" for row in rows
    ]
    summaries = {}
    if len(folders) > 1:
        runs = read_runs(folders)
        rankers = set(runs.tables[0]["model"].unique())
        for against, words in PAIRS:
            if against not in rankers:
                continue
            summaries[against] = over_runs(runs, "ndcg@5", against, resampling)
            lines += [f"\n## Against {words}\n", "```", *table(summaries[against]), "```"]
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.json").write_text(json.dumps({"runs": rows, "summaries": summaries}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
