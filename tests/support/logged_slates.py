"""Logged slates of the project of retrieve_project.py: one for every interaction after the base split, of three to K candidates."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stages.retrieve.params import GivenParams, RetrieveParams
from stages.shared.core.schemas import USERS, write_table
from tests.support.retrieve_project import PARAMS, SPLITS, START, K, N, own_items
from tests.support.retrieve_project import USERS as USER_COUNT

LOG = "logged.jsonl"
BASE = SPLITS.count("base")


def logged_slates() -> list[dict[str, Any]]:
    """By user, then time. Shown ten seconds before the target was taken; the other candidates are of no split of the user."""
    rows = []
    for user in range(USER_COUNT):
        own = own_items(user)
        others = [item for item in range(N) if item not in own]
        for position in range(BASE, len(SPLITS)):
            rng = np.random.default_rng([user, position])
            candidates = rng.choice(others, int(rng.integers(2, K)), replace=False).tolist()
            candidates.insert(int(rng.integers(len(candidates) + 1)), own[position])
            shown = START + 100 * position + user - 10
            rows.append({"user": f"u{user}", "time": shown, "candidates": list(map(str, candidates)), "taken": [str(own[position])]})
    return rows


def write_users(root: Path) -> None:
    users = pl.DataFrame([(user, f"u{user}") for user in range(USER_COUNT)], schema=USERS, orient="row")
    write_table(users, root / "data/ingest/users.parquet", USERS)


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def write_csv(path: Path, rows: list[dict[str, Any]], separator: str = " ") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        table.writeheader()
        for row in rows:
            table.writerow({key: separator.join(map(str, value)) if isinstance(value, list) else value for key, value in row.items()})


def given_params(reads: str = LOG, **given: Any) -> RetrieveParams:
    values = PARAMS.model_dump() | {"model": "given", "reads": reads, "given": GivenParams(**given).model_dump()}
    return RetrieveParams(**values)
