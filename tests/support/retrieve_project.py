"""A project of 40 users and 25 items: the next item follows from the last one."""

import polars as pl
import yaml

from stages.retrieve.params import RetrieveParams
from stages.retrieve.retrieve import retrieve
from stages.shared.core.outputs import read_json, stage_outputs
from stages.shared.core.schemas import INTERACTIONS, ITEMS, SLATES, read_table
from stages.shared.slates.candidate_features import read_candidate_features
from stages.shared.slates.prompt_params import PromptParams

N, USERS, K = 25, 40, 5
START = 1_000_000_000
SPLITS = ["base"] * 8 + ["train"] * 3 + ["valid"] + ["test"] * 2
PARAMS = RetrieveParams(candidates=K, history=4, max_length=6, hidden=16, layers=1, heads=1, epochs=8, threads=1, feature_bins=4)


def own_items(user: int) -> list[int]:
    return [(user + step * (1 + user % 2)) % N for step in range(len(SPLITS))]


def interactions() -> pl.DataFrame:
    rows = [(u, item, i, START + 100 * i + u, SPLITS[i]) for u in range(USERS) for i, item in enumerate(own_items(u))]
    return pl.DataFrame(rows, schema=INTERACTIONS, orient="row")


def others(where: pl.Expr) -> pl.DataFrame:
    """Other items than the users take in the rows `where`, and none that they take elsewhere."""
    moved = (pl.col("item") + pl.when(pl.col("user") % 2 == 0).then(7).otherwise(12)) % N
    changed = interactions().with_columns(item=pl.when(where).then(moved).otherwise("item").cast(pl.Int32))
    assert changed.select("user", "item").is_unique().all()
    return changed


def items(number: int = N) -> pl.DataFrame:
    rows = [(i, str(i), f"Title {i}", "", [f"c{i % 3}"], None, "") for i in range(number)]
    return pl.DataFrame(rows, schema=ITEMS, orient="row")


def write_prompt_params(project, **options) -> None:
    (project / "params.yaml").write_text(yaml.safe_dump({"prompt": PromptParams(**options).model_dump()}))


def run(project, params: RetrieveParams = PARAMS) -> tuple[pl.DataFrame, pl.DataFrame, dict]:
    with stage_outputs("retrieve") as outputs:
        retrieve(params, outputs)
    folder = project / "data/retrieve"
    return (
        read_table(folder / "slates.parquet", SLATES),
        read_candidate_features(folder / "candidate_features.parquet"),
        read_json(folder / "metrics.json"),
    )
