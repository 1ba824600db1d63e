"""Mid-training of one project with other values and seeds, for the scripts of this folder: the stage's own command, each run in a folder
of its own, which is kept, so that a script that was stopped goes on where it was.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import polars as pl
import torch
import yaml

from stages.midtrain.probes import NextItems, search_next_items
from stages.shared.core.schemas import INTERACTIONS, SIDS, read_table
from stages.shared.lm.models import load_model, load_tokenizer
from stages.shared.stats.bootstrap import Bootstrap
from stages.shared.stats.multi_seed import over_seeds

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench/results"
INPUTS = ("ingest", "tokenize")
MEASURING = Lock()  # transformers switches global state while it loads a model


@dataclass(frozen=True)
class Trained:
    """One run: data/midtrain/metrics.json, the next items of its users, and the seconds that the stage took."""

    metrics: dict[str, Any]
    found: NextItems
    seconds: float


def train(project: Path, folder: Path, values: Mapping[str, Any], users: int, target: str = "train") -> Trained:
    """values: of the section `midtrain`, in place of the project's. project: has data/ingest and data/tokenize. target: the split whose
    first item of each user is searched, after all that came before it."""
    for name in INPUTS:
        if not (project / "data" / name / "metrics.json").exists():
            sys.exit(f"{project}/data/{name}: not there; in that project run: gr2 run --until tokenize")
    note = folder / "seconds.txt"
    if not note.exists():
        link_inputs(folder, project, INPUTS)
        params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
        # The search below asks all users; the probe of the stage would ask some of them a second time.
        params["midtrain"] |= {**values, "probe_users": 0}
        (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        started = time.monotonic()
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-m", "stages.midtrain"], cwd=folder, env=environment, check=True)
        note.write_text(f"{time.monotonic() - started:.1f}", encoding="utf-8")
    metrics = json.loads((folder / "data/midtrain/metrics.json").read_text(encoding="utf-8"))
    with MEASURING:
        found = _next_items(project, folder, users, target)
    return Trained(metrics, found, float(note.read_text(encoding="utf-8")))


def link_inputs(folder: Path, project: Path, names: Sequence[str]) -> None:
    """In `folder` the outputs of these stages of `project`, as far as it has them, and the models and settings of this checkout."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name in (*(f"data/{name}" for name in names), "infra"):
        link, made = folder / name, (ROOT if name == "infra" else project) / name
        if not link.exists() and made.exists():
            link.symlink_to(made.resolve())


def _next_items(project: Path, folder: Path, users: int, target: str) -> NextItems:
    kept = folder / f"next_items_{target}_{users}.npz"
    if not kept.exists():
        gpu = torch.cuda.is_available()
        model = load_model(folder / "data/midtrain/model", device="cuda" if gpu else "cpu")
        interactions = read_table(project / "data/ingest/interactions.parquet", INTERACTIONS)
        sids = read_table(project / "data/tokenize/sids.parquet", SIDS)
        codes_NL = np.array(sids.sort("item")["codes"].to_list(), dtype=np.int64)
        later = interactions.filter(pl.col("split") == target)
        first = later.group_by("user").agg(pl.col("position").min().alias("first"))
        before = interactions.join(first, on="user").filter(pl.col("position") < pl.col("first")).drop("first")
        tokenizer = load_tokenizer(folder / "data/midtrain/model")
        found = search_next_items(model, tokenizer, codes_NL, before, later, users, batch_size=512 if gpu else 64)
        np.savez(kept, users=found.users, rank_B=found.rank_B, free_B=found.free_B, chance=found.chance)
    content = np.load(kept)
    return NextItems(content["users"].tolist(), content["rank_B"], content["free_B"], float(content["chance"]))


def interval(runs: Sequence[Trained], metric: str, cut: int, against: Sequence[Trained] = ()) -> dict[str, Any]:
    """Of recall or ndcg at `cut`, or its difference from the runs `against` of the same seeds: mean and 95 % interval over seeds and users
    (stages/shared/stats/multi_seed.py); of a single run the mean alone."""
    values_SN = np.stack([getattr(run.found, metric)(cut) for run in runs])
    if against:
        values_SN = values_SN - np.stack([getattr(run.found, metric)(cut) for run in against])
    if len(runs) < 2:
        return {"seeds": 1, "mean": float(values_SN.mean())}
    return over_seeds(values_SN, Bootstrap(np.array(runs[0].found.users), 2000, 7))


def shown(figures: Mapping[str, Any], signed: bool = False) -> str:
    mean = f"{figures['mean']:+.4f}" if signed else f"{figures['mean']:.4f}"
    return mean + (f" [{figures['ci'][0]:+.4f}, {figures['ci'][1]:+.4f}]" if "ci" in figures else " (one seed)")


def settings(texts: Sequence[str], section: str = "midtrain") -> dict[str, Any]:
    """KEY=VALUE of the section, values as YAML."""
    if wrong := [text for text in texts if "=" not in text]:
        sys.exit(f"--set {wrong[0]}: KEY=VALUE is expected, a key of the section {section}, such as --set steps=2")
    return {key.removeprefix(f"{section}."): yaml.safe_load(value) for key, _, value in (text.partition("=") for text in texts)}


def write(name: str, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], figures: Any) -> None:
    """bench/results/NAME.md and .json; the table is printed, too."""
    write_lines(
        name,
        title,
        ["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *("| " + " | ".join(row) + " |" for row in rows)],
        figures,
    )


def write_lines(name: str, title: str, lines: Sequence[str], figures: Any) -> None:
    """As `write`, of a text that is Markdown already."""
    print("\n".join(lines), flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(f"# {title}\n\n`python {' '.join(sys.argv)}`\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
