"""What a stage asked of a language model, and what it said: `gr2 show traces --slate 12`. Without row or slate: a list."""

import argparse
import json
import sys
from pathlib import Path

import polars as pl

from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA
from stages.shared.core.schemas import read_table
from stages.shared.generation.invocations import INVOCATIONS

STAGES = {"traces": "traces.language_model.keep_invocations", "evaluate": "evaluate.keep_invocations"}
TEXTS = ("prompt", "completion")


def read_invocations(stage: str, data: Path = DATA) -> pl.DataFrame:
    """With a column `row`. StageError where none were kept."""
    if stage not in STAGES:
        raise StageError(f"{stage}: keeps no prompts and completions; choose {' or '.join(STAGES)}")
    path = data / stage / "invocations.parquet"
    table = read_table(path, INVOCATIONS, may_be_empty=True)
    if table.is_empty():
        raise StageError(f"{path}: empty; set {STAGES[stage]}: true, where a language model is asked, and run: gr2 run {stage}")
    return table.with_row_index("row")


def select(table: pl.DataFrame, options: argparse.Namespace) -> pl.DataFrame:
    """The rows that the options name; StageError where there are none."""
    chosen = table
    for name in ("row", "slate", "model", "kind"):
        if (value := getattr(options, name)) is not None:
            chosen = chosen.filter(pl.col(name) == value)
    if chosen.is_empty():
        pairs = dict.fromkeys(zip(table["model"].to_list(), table["kind"].to_list(), strict=True))
        known, slates = ", ".join(f"{model}: {kind}" for model, kind in pairs), table["slate"].to_list()
        raise StageError(f"no such row: there are {table.height} rows, of slates {min(slates)} to {max(slates)} ({known})")
    return chosen


def whole(row: dict[str, object]) -> str:
    """One row for a person: its figures in a line, then both texts as they are."""
    figures = ", ".join(f"{key} {_short(value)}" for key, value in row.items() if key not in TEXTS)
    return "\n".join([figures, "", *(part for name in TEXTS for part in (f"--- {name}", printable(str(row[name])), ""))])


def listing(table: pl.DataFrame) -> list[str]:
    """A line a row, with the beginning of its completion."""
    lines = []
    for row in table.iter_rows(named=True):
        figures = f"{row['row']:>6} slate {row['slate']:<7} {row['model']:<10} {row['kind']:<12} {row['finish']:<8}"
        counts = f"{row['prompt_tokens']:>6} + {row['completion_tokens']:<5} {row['seconds']:8.3f} s"
        lines.append(f"{figures} {counts}  {printable(' '.join(row['completion'].split()))[:60]}")
    return lines


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="gr2 show", description="Prompts and completions that a stage kept.")
    parser.add_argument("stage")
    parser.add_argument("--row", type=int)
    parser.add_argument("--slate", type=int)
    parser.add_argument("--model")
    parser.add_argument("--kind")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        chosen = select(read_invocations(options.stage), options)
    except StageError as error:
        sys.exit(f"gr2 show: {error}")
    one_by_one = options.row is not None or options.slate is not None
    shown = chosen.head(options.limit or (1 if one_by_one else 20))
    if options.json:
        print(json.dumps(shown.to_dicts(), ensure_ascii=False, indent=2))
        return
    print(*([whole(row) for row in shown.iter_rows(named=True)] if one_by_one else listing(shown)), sep="\n")
    if chosen.height > shown.height:
        print(f"{chosen.height - shown.height} more: --limit, --row, --slate, --model, --kind")


def _short(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def printable(text: str) -> str:
    """Text from outside: what would steer a terminal is written out."""
    return "".join(letter if letter.isprintable() or letter == "\n" else f"\\x{ord(letter):02x}" for letter in text)


if __name__ == "__main__":
    main()
