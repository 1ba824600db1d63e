"""Amazon Beauty for the scripts of this folder: ingested and embedded once by the pipeline's own stages, in a scratch folder.

The data (Amazon Review Data 2014, Beauty, 5-core: 22,363 users, 12,101 items) is not part of the project. `--data` names a folder
with `sequences.txt` and `items.jsonl` (docs/own-data.md, the plain pair).
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import yaml

ROOT = Path(__file__).resolve().parents[1]


def prepare(data: Path, scratch: Path) -> Path:
    """The folder of a project with data/ingest and data/embed of Amazon Beauty; made on first use (about two minutes)."""
    if not (data / "sequences.txt").exists():
        sys.exit(f"{data}: no sequences.txt; --data must name the folder with Amazon Beauty as a plain pair (docs/own-data.md)")
    project = scratch / "beauty"
    if not (project / "data/embed/embeddings.npy").exists():
        project.mkdir(parents=True, exist_ok=True)
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
        (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        for stage in ("ingest", "embed"):
            subprocess.run([sys.executable, "-m", f"stages.{stage}"], cwd=project, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return project


def load(project: Path) -> tuple[np.ndarray, pl.DataFrame, pl.DataFrame]:
    """Embeddings [items, 384], items, interactions."""
    ingest = project / "data/ingest"
    return (
        np.load(project / "data/embed/embeddings.npy"),
        pl.read_parquet(ingest / "items.parquet").sort("item"),
        pl.read_parquet(ingest / "interactions.parquet"),
    )
