"""What the synthetic world would pay: the probability of every candidate of the training slates to be the one taken, as a table for
rl.relevances.

    gr2 run --until retrieve --profile world         # once, in a clone: PROJECT
    python bench/world_relevances.py TABLE --project PROJECT
    python bench/few_traces.py FOLDER --project PROJECT --set rl.relevances=TABLE     # TABLE: an absolute path

RL whose reward is the expected one has no luck of the draw in it: what it does not learn then, it does not lack signal for. An
experiment: the table is the oracle's, which no stage that learns may read, so nothing trained with it is a result.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl

from stages.rl.rewards.relevances import RELEVANCES
from stages.shared.core.schemas import INTERACTIONS, SLATES, read_table, write_table
from stages.shared.synthetic.world import World, whole_histories


def world_relevances(project: Path) -> pl.DataFrame:
    """RELEVANCES of the training slates with their target, by slate. SystemExit where the project's data are real."""
    world = World.load(project / "data/ingest/world.safetensors")
    if world is None:
        raise SystemExit(f"{project}/data/ingest holds no synthetic world; run: gr2 run --until retrieve --profile world")
    slates = read_table(project / "data/retrieve/slates.parquet", SLATES)
    slates = slates.filter((pl.col("split") == "train") & (pl.col("target_rank") >= 0))
    log = read_table(project / "data/ingest/interactions.parquet", INTERACTIONS)
    relevances: list[list[float]] = []
    # Slates of unlike length are no rectangle.
    lengths = slates["candidates"].list.len()
    parts = [slates.filter(lengths == length) for length in sorted(lengths.unique())]
    for part in parts:
        histories = whole_histories(log, part["user"], part["position"])
        relevances += world.chances(histories, np.array(part["candidates"].to_list())).tolist()
    return pl.DataFrame({"slate": pl.concat(parts)["slate"], "relevances": relevances}, schema=RELEVANCES).sort("slate")


def write_world_relevances(project: Path, path: Path) -> int:
    """Returns the number of slates."""
    table = world_relevances(project)
    write_table(table, path, RELEVANCES)
    return table.height


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--project", type=Path, default=Path(), help="with data/ingest and data/retrieve")
    options = parser.parse_args()
    print(f"{options.table}: {write_world_relevances(options.project, options.table):,} training slates")


if __name__ == "__main__":
    main()
