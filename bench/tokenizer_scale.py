"""The stage `tokenize` on 10,000, 100,000 and 1,000,000 synthetic items of 384 dimensions: seconds and peak memory of the whole
process.

    python bench/tokenizer_scale.py        (about half an hour on two cores)

Items come from a tree of clusters (256 of 16, then noise), unit length, so that codes have something to find. Every run is `python
-m stages.tokenize` in a scratch project: reading, training, codes, optimal last level, all measurements, all outputs. Writes
bench/results/tokenizer_scale.md.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

ROOT = Path(__file__).resolve().parents[1]
DIM = 384
COMMON = {"codebook_size": 256, "assignment": "optimal_last", "train_items": 100_000, "threads": 2}
METHODS: dict[str, dict[str, Any]] = {
    "RQ-VAE": {"latent_dim": 32, "hidden_dims": [256], "warmup_epochs": 5, "epochs": 20, "batch_size": 512},
    "RQ-k-means": {"method": "rqkmeans", "beam": 1, "refine_rounds": 1},
}


def make_items(project: Path, count: int) -> None:
    """data/embed and data/ingest of `count` items, the same for the same count; written in chunks."""
    sys.path.insert(0, str(ROOT))
    from stages.shared.core.schemas import INTERACTIONS, ITEMS

    for room in ("embed", "ingest"):
        (project / "data" / room).mkdir(parents=True)
    generator = np.random.default_rng(count)
    coarse, fine = generator.normal(size=(256, DIM)), 0.7 * generator.normal(size=(256, 16, DIM))
    vectors = np.lib.format.open_memmap(project / "data/embed/embeddings.npy", mode="w+", dtype=np.float32, shape=(count, DIM))
    cluster_labels = []
    for start in range(0, count, 50_000):
        rows = min(50_000, count - start)
        one, two = generator.integers(0, 256, size=rows), generator.integers(0, 16, size=rows)
        part = coarse[one] + fine[one, two] + 0.5 * generator.normal(size=(rows, DIM))
        vectors[start : start + rows] = part / np.linalg.norm(part, axis=1, keepdims=True)
        cluster_labels.append(np.stack([one, two], axis=1))
    vectors.flush()
    labels = np.concatenate(cluster_labels)
    number = pl.Series("item", range(count), dtype=pl.Int32)
    items = pl.DataFrame({"item": number}).with_columns(
        source_id=pl.format("s{}", "item"),
        title=pl.format("Item {}", "item"),
        brand=pl.lit(""),
        categories=pl.concat_list(pl.Series(labels[:, 0]).cast(pl.String), pl.Series(labels[:, 1]).cast(pl.String)),
        year=pl.lit(None, dtype=pl.Int32),
        text=pl.format("Item {}.", "item"),
    )
    items.cast(ITEMS).write_parquet(project / "data/ingest/items.parquet")  # type: ignore[arg-type]
    taken = np.minimum(generator.zipf(1.3, size=2 * count) - 1, count - 1)
    log = pl.DataFrame(
        {"user": np.arange(2 * count) // 20, "item": taken, "position": np.arange(2 * count) % 20, "timestamp": np.arange(2 * count)}
    )
    log.with_columns(split=pl.lit("base")).cast(INTERACTIONS).write_parquet(project / "data/ingest/interactions.parquet")  # type: ignore[arg-type]


def run_stage(project: Path, method: str) -> dict[str, Any]:
    """Seconds, peak memory and the stage's metrics, from a process that runs nothing else."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["tokenize"] |= COMMON | METHODS[method]
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "stages.tokenize"], cwd=project, check=True, env=environment, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    metrics = json.loads((project / "data/tokenize/metrics.json").read_text(encoding="utf-8"))
    return {"seconds": seconds, "peak_gib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, "metrics": metrics}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--scratch", type=Path, default=Path(".bench/scale"))
    parser.add_argument("--one", nargs=2, metavar=("ITEMS", "METHOD"), help="one run in this process, its numbers as JSON")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results/tokenizer_scale.md")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_stage(options.scratch / options.one[0], options.one[1])))
        return
    rows = []
    for count in options.items:
        project = options.scratch / str(count)
        shutil.rmtree(project, ignore_errors=True)
        make_items(project, count)
        for method in METHODS:
            command = [sys.executable, __file__, "--scratch", str(options.scratch), "--one", str(count), method]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows.append((count, method, json.loads(done.stdout.splitlines()[-1])))
            print(count, method, rows[-1][2]["seconds"], rows[-1][2]["peak_gib"], flush=True)
        shutil.rmtree(project)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(report(rows), encoding="utf-8")
    print(options.out.read_text(encoding="utf-8"))


def report(rows: list[tuple[int, str, dict[str, Any]]]) -> str:
    lines = [
        "# The stage tokenize by catalogue size",
        "",
        "`python bench/tokenizer_scale.py`: one process of two threads a row, 4 x 256 codes, learnt on at most 100,000 items,",
        "optimal last level;",
        "from start to exit, all measurements included. The embeddings themselves (1.4 GiB for a million) are mapped from disk",
        "and count in the peak.",
        "",
        "| items | method | s | ms an item | peak GiB | unique, nearest | unique, after | overflowed | error / variance |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for count, method, row in rows:
        metrics = row["metrics"]
        error = metrics["reconstruction_error"] / metrics["embedding_variance"]
        uniqueness = metrics["uniqueness"]
        lines.append(
            f"| {count:,} | {method} | {row['seconds']:.0f} | {1000 * row['seconds'] / count:.2f} | {row['peak_gib']:.2f} "
            f"| {uniqueness['before']:.2%} | {uniqueness['after']:.2%} | {metrics['overflowed']} | {error:.3f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
