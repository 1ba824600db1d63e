"""A folder with the inputs of the stage, for the tests of this room."""

from pathlib import Path

import numpy as np
import polars as pl

from stages.shared.core.outputs import stage_outputs
from stages.shared.core.run import set_seed
from stages.shared.core.schemas import INTERACTIONS, ITEMS, write_table
from stages.tokenize.params import TokenizeParams
from stages.tokenize.tokenize import tokenize

SMALL = {
    "levels": 3,
    "codebook_size": 8,
    "latent_dim": 4,
    "hidden_dims": [16],
    "warmup_epochs": 4,
    "epochs": 8,
    "batch_size": 32,
    "usage_gate": 0.0,
}


def make_project(project: Path, vectors: np.ndarray, source_ids: list[str] | None = None) -> None:
    """data/embed with `vectors`, data/ingest with an item for each and 30 users of four items one after the other."""
    count = len(vectors)
    ids = source_ids or [f"s{item}" for item in range(count)]
    rows = [(item, source_id, f"Item {item}", "", [f"c{item % 4}"], None, f"Item {item}.") for item, source_id in enumerate(ids)]
    pairs = [(user, (2 * user + place) % count, place, place, "base") for user in range(30) for place in range(4)]
    (project / "data/ingest").mkdir(parents=True, exist_ok=True)
    write_table(pl.DataFrame(rows, schema=ITEMS, orient="row"), project / "data/ingest/items.parquet", ITEMS)
    write_table(pl.DataFrame(pairs, schema=INTERACTIONS, orient="row"), project / "data/ingest/interactions.parquet", INTERACTIONS)
    save_embeddings(project, vectors)


def save_embeddings(project: Path, vectors: np.ndarray) -> None:
    path = project / "data/embed/embeddings.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # the stage maps the file: written over, an earlier map would change
    np.save(path, vectors)


def run(project: Path, **more) -> dict[str, bytes]:
    """The stage's outputs by name; `project` is the working folder."""
    params = TokenizeParams(**{**SMALL, **more})
    set_seed(params.seed)
    with stage_outputs("tokenize") as outputs:
        tokenize(params, outputs)
    return {path.name: path.read_bytes() for path in (project / "data/tokenize").iterdir()}
