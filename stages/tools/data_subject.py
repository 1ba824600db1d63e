"""What is held of one user of the source, as JSON: `python -m stages.tools.data_subject [--tables FOLDER ...] -- USER`. It changes nothing.

`gr2 forget` asks; a process of its own because the command line knows no stage from inside.
"""

import argparse
import json
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from stages.ingest.params import IngestParams
from stages.ingest.readers.forget import digest
from stages.ingest.sources.source import read_source
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA
from stages.shared.core.params import load_params
from stages.shared.core.schemas import INTERACTIONS, USERS, read_slate_table, read_table
from stages.shared.sources.first_bytes import is_parquet


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.tools.data_subject")
    parser.add_argument("user", metavar="USER", help="the id as in the raw file")
    parser.add_argument(
        "--tables", metavar="FOLDER", nargs="+", default=[], help="say which files below are tables of users that hold this one"
    )
    options = parser.parse_args(arguments)
    try:
        print(json.dumps(user_data(options.user, [Path(folder) for folder in options.tables])))
    except StageError as error:
        sys.exit(str(error))


def user_data(user: str, folders: list[Path]) -> dict[str, Any]:
    user = user.strip()
    if not user:
        raise StageError("USER is empty; give the id as it stands in the raw file")
    params = load_params("ingest", IngestParams)
    found = _held_of(user, folders, params)
    # Numbers of JSON and Parquet are one id however they are written: 7.0 is kept as 7. Text that reads 7.0 is another id, and goes first.
    as_number = re.sub(r"^([+-]?\d+)\.0+$", r"\1", user)
    is_held = found["listed"] or found["dense"] is not None or found["tables"] or found["raw"].get("rows")
    return found if is_held or as_number == user else _held_of(as_number, folders, params)


def _held_of(user: str, folders: list[Path], params: IngestParams) -> dict[str, Any]:
    """user: the id as it would be stored."""
    user_digest = digest(user, params.forget_salt)
    return {
        "user": user,
        "digest": user_digest,
        "listed": user_digest in params.forget,
        "raw": raw_rows(user_digest, params),
        **outputs(user),
        "tables": [path for folder in folders for path in tables_with(user, folder)],
    }


def raw_rows(user_digest: str, params: IngestParams) -> dict[str, Any]:
    """How many rows are theirs, counted by reading the raw files as ingest does; {"error"} where they cannot be read."""
    # Readers tell their progress on standard output, which here is for JSON alone.
    with TemporaryDirectory() as scratch, redirect_stdout(sys.stderr):
        try:
            # Read as if this user alone were forgotten: what is left out then is theirs, whatever the format.
            raw = read_source(params.model_copy(update={"forget": [user_digest]}), Path(scratch))
        except StageError as error:
            return {"error": str(error)}
    return {"files": [file.name for file in raw.files], "source": raw.name, "rows": raw.forgotten["forgotten_rows"]}


def outputs(user: str) -> dict[str, Any]:
    """Dense id (null: not in the table, or no table), interactions and slates by split."""
    table = DATA / "ingest" / "users.parquet"
    users = read_table(table, USERS).filter(pl.col("source_id") == user)["user"].to_list() if table.exists() else []
    slates = DATA / "retrieve" / "slates.parquet"
    quarantine = DATA / "ingest" / "quarantine.parquet"
    return {
        "ingested": table.exists(),
        "dense": users[0] if users else None,
        "interactions": _by_split(table.with_name("interactions.parquet"), users[0]) if users else {},
        "slates": _by_split(slates, users[0]) if users and slates.exists() else {},
        "quarantine": _mentioned(quarantine, user) if quarantine.exists() else 0,
    }


def tables_with(user: str, folder: Path) -> list[str]:
    """Files below `folder` that are tables of users, whatever their name (it may be DVC's cache), and hold `user`."""
    paths = []
    for path in sorted(folder.rglob("*")):
        # By content: in DVC's cache a file has its hash as its name.
        if path.is_file() and _is_users(path):
            ids = pl.scan_parquet(path).filter(pl.col("source_id") == user).select(pl.len()).collect().item()
            paths += [str(path)] if ids else []
    return paths


def _is_users(path: Path) -> bool:
    if not is_parquet(path):
        return False
    try:
        return pl.read_parquet_schema(path) == USERS
    except pl.exceptions.PolarsError:  # cut short: nobody can read it
        return False


def _by_split(table: Path, dense: int) -> dict[str, int]:
    whole = read_slate_table(table) if table.name == "slates.parquet" else read_table(table, INTERACTIONS)
    rows = whole.filter(pl.col("user") == dense)
    return dict(rows.group_by("split", maintain_order=True).len().iter_rows())


def _mentioned(quarantine: Path, user: str) -> int:
    """Rejected rows in whose text the id stands as a word: it may be an item of that name, too."""
    texts = pl.read_parquet(quarantine)["text"]
    return sum(user in _words(text) for text in texts)


def _words(text: str) -> set[str]:
    return set("".join(" " if char in "\t,;:|\"'{}[]" else char for char in text).split())


if __name__ == "__main__":
    main()
