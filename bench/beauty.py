"""A plain pair, such as Amazon Beauty, for the scripts of this folder: ingested and embedded once by the pipeline's own stages, in a
scratch folder of that data.

Amazon Review Data 2014, Beauty, 5-core (22,363 users, 12,101 items) is not part of the project. `--data` names a folder
with `sequences.txt` and `items.jsonl` (docs/own-data.md, the plain pair).
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import yaml

ROOT = Path(__file__).resolve().parents[1]


FILES = ("sequences.txt", "items.jsonl")


def name_of(data: Path) -> str:
    """The data set for people, by its folder: Amazon Beauty of amazon_beauty."""
    return data.resolve().name.replace("_", " ").replace("-", " ").title()


def prepare(data: Path, scratch: Path) -> Path:
    """The folder of a project with data/ingest and data/embed of the pair in `data`; made on first use (Beauty: about two minutes)."""
    if absent := [name for name in FILES if not (data / name).exists()]:
        sys.exit(f"{data}: no {absent[0]}; --data must name the folder with a plain pair (docs/own-data.md)")
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["ingest"] |= {
        "source": "folder",
        "folder": str(data.resolve()),
        "split": "leave_one_out",
        "min_interactions": 5,
        "min_base": 1,
    }
    params["ingest"] |= {"base_share": 0.99}
    params["embed"] |= {"threads": 2}
    # A folder for each data set and setting: what is there was made of exactly these bytes.
    digest = hashlib.sha256(yaml.safe_dump({name: params[name] for name in ("ingest", "embed")}).encode())
    for name in FILES:
        with (data / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    project = scratch / f"pair-{digest.hexdigest()[:12]}"
    if not (project / "data/embed/embeddings.npy").exists():
        project.mkdir(parents=True, exist_ok=True)
        (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        for stage in ("ingest", "embed"):
            subprocess.run([sys.executable, "-m", f"stages.{stage}"], cwd=project, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return project


def load(project: Path) -> tuple[np.ndarray, pl.DataFrame, pl.DataFrame]:
    """Embeddings [items, 384], items, interactions, in which all but the last two of each user are base."""
    ingest = project / "data/ingest"
    interactions = pl.read_parquet(ingest / "interactions.parquet")
    return (
        np.load(project / "data/embed/embeddings.npy"),
        pl.read_parquet(ingest / "items.parquet").sort("item"),
        interactions.with_columns(pl.col("split").replace("train", "base")),  # nothing is trained on slates here
    )
