"""What the policy answered while it learnt, and what that earned: `gr2 rollouts --step 3 --worst`. Without a choice: a list."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import polars as pl

from stages.rl.watch.rollouts_table import ROLLOUTS
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA
from stages.shared.core.schemas import ITEMS, read_slate_table, read_table
from stages.tools.show import printable

VALID = "valid"  # what --fault says of an answer without one


def read_rollouts(data: Path = DATA) -> pl.DataFrame:
    """With a column `row`. StageError where none were kept."""
    path = data / "rl/rollouts.parquet"
    table = read_table(path, ROLLOUTS, may_be_empty=True)
    if table.is_empty():
        raise StageError(f"{path}: empty; set rl.keep_rollouts, 0.1 say, and run: gr2 run rl")
    return table.with_row_index("row")


def select(table: pl.DataFrame, options: argparse.Namespace) -> pl.DataFrame:
    """The rows that the options name, by reward where best or worst are asked for; StageError where there are none."""
    chosen = table
    for name in ("row", "step", "slate"):
        if (value := getattr(options, name)) is not None:
            chosen = chosen.filter(pl.col(name) == value)
    if options.fault is not None:
        chosen = chosen.filter(pl.col("fault") == ("" if options.fault == VALID else options.fault))
    if chosen.is_empty():
        counts = {fault or VALID: count for fault, count in table["fault"].value_counts().sort("fault").iter_rows()}
        faults = ", ".join(f"{fault}: {count}" for fault, count in counts.items())
        steps, slates = table["step"].to_list(), table["slate"].to_list()
        raise StageError(
            f"no such row: there are {table.height} answers of steps {min(steps)} to {max(steps)}, slates {min(slates)} to "
            f"{max(slates)} ({faults})"
        )
    return chosen.sort("reward", descending=options.best, maintain_order=True) if options.best or options.worst else chosen


def titles_of(slates: set[int], data: Path = DATA) -> dict[int, list[str]]:
    """Slate -> titles of its candidates in initial ranking; those that the tables of this checkout do not have are left out."""
    paths = data / "retrieve/slates.parquet", data / "ingest/items.parquet"
    if not all(path.exists() for path in paths):
        return {}
    table, items = read_slate_table(paths[0]), read_table(paths[1], ITEMS)
    titles = dict(items.select("item", "title").iter_rows())
    rows = table.filter(pl.col("slate").is_in(slates)).select("slate", "candidates").iter_rows()
    return {slate: [titles.get(item, "?") for item in candidates] for slate, candidates in rows}


def candidates(row: dict[str, Any], titles: list[str]) -> list[str]:
    """A line a candidate in the order shown: initial rank, new rank, title; the target has a star."""
    lines = []
    for rank in row["shown"]:
        new = f"-> {row['order'].index(rank) + 1:>2}" if row["order"] is not None else " " * 5
        lines.append(f"  {rank + 1:>2} {new} {'*' if rank == row['target_rank'] else ' '} {printable(titles[rank])}")
    return lines


def whole(row: dict[str, Any], titles: list[str]) -> str:
    """One answer for a person: what it earned and why, then prompt and completion as they are. Ranks count from 1 here.

    titles: of the candidates in initial ranking; of a slate that was cut to a window, or is not known, there are none.
    """
    parts = ", ".join(f"{part['name']} {part['value']:.3f}" for part in row["parts"]) or "no parts"
    lines = [
        f"row {row['row']}: step {row['step']}, slate {row['slate']}, group {row['group']} of process {row['process']}, "
        f"sample {row['sample']}, {row['tokens']} tokens",
        f"reward {row['reward']:.4f} ({parts}), {_advantage(row)}",
        f"target: initial rank {row['target_rank'] + 1}, {_new_rank(row)}",
        f"shown:  {_ranks(row['shown'])}",
        *([f"answer: {_ranks(row['order'])}"] if row["order"] is not None else []),
        *(candidates(row, titles) if len(titles) == len(row["shown"]) else []),
    ]
    texts = [part for name in ("prompt", "completion") for part in (f"--- {name}", printable(str(row[name])), "")]
    return "\n".join([*lines, "", *texts])


def listing(table: pl.DataFrame) -> list[str]:
    """A line an answer, with the end of its completion, where the answer stands."""
    lines = []
    for row in table.iter_rows(named=True):
        moved = (
            f"{row['target_rank'] + 1:>2} -> {row['new_rank'] + 1:<2}"
            if row["new_rank"] is not None
            else f"{row['target_rank'] + 1:>2}      "
        )
        advantage = f"{row['advantage']:+7.3f}" if row["advantage"] is not None else " " * 7
        figures = f"{row['row']:>6} step {row['step']:<4} slate {row['slate']:<7} {moved} {row['fault'] or VALID:<11} {row['reward']:+7.3f}"
        lines.append(f"{figures} {advantage} {row['tokens']:>5}  {printable(' '.join(row['completion'].split()))[-60:]}")
    return lines


def _ranks(ranks: list[int]) -> str:
    return " ".join(str(rank + 1) for rank in ranks)


def _advantage(row: dict[str, Any]) -> str:
    if row["advantage"] is not None:
        return f"advantage {row['advantage']:+.4f}"
    return "learnt from, by an objective without advantages" if row["learnt"] else "not learnt from"


def _new_rank(row: dict[str, Any]) -> str:
    return f"new rank {row['new_rank'] + 1}" if row["new_rank"] is not None else f"no answer: {row['fault']}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="gr2 rollouts", description="Rollouts that rl kept.")
    for name in ("row", "step", "slate", "limit"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--fault")
    order = parser.add_mutually_exclusive_group()
    order.add_argument("--best", action="store_true")
    order.add_argument("--worst", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        chosen = select(read_rollouts(), options)
    except StageError as error:
        sys.exit(f"gr2 rollouts: {error}")
    one_by_one = options.full or options.row is not None
    shown = chosen.head(options.limit or (1 if one_by_one else 20))
    if options.json:
        print(json.dumps(shown.to_dicts(), ensure_ascii=False, indent=2))
        return
    if one_by_one:
        titles = titles_of(set(shown["slate"].to_list()))
        print(*(whole(row, titles.get(row["slate"], [])) for row in shown.iter_rows(named=True)), sep="\n")
    else:
        print(
            "   row                      target   fault        reward  advantage tokens, end of the completion", *listing(shown), sep="\n"
        )
    if chosen.height > shown.height:
        print(f"{chosen.height - shown.height} more: --limit, --row, --step, --slate, --fault, --best, --worst, --full")


if __name__ == "__main__":
    main()
