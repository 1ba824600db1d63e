"""The raw files of ingest's source as they stand now: `python -m stages.tools.source_fingerprint` prints one line of JSON.

{"source", "fixed", "files": {name: {"sha256", "bytes"}}, "notes"}: names, hashes and sizes as data/ingest/metrics.json has them.
`fixed`: pinned by hash, or made up, so that it can never change; nothing is read then. With --fetch, a file in the cache that is
missing, or whose publisher has a newer version, is fetched first.
"""

import argparse
import json
import os
import sys
import urllib.request
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from stages.ingest import amazon, recbole, wheel
from stages.ingest.fetch import Remote, fetch_all
from stages.ingest.params import IngestParams
from stages.ingest.raw import RawFile
from stages.ingest.source import cache_folder
from stages.shared.core.errors import StageError
from stages.shared.core.params import load_params

MOVIELENS = {"100k": ("u.data", "u.item"), "1m": ("ratings.dat", "movies.dat"), "25m": ("ratings.csv", "movies.csv")}
PAIR = ("sequences.txt", "items.jsonl")
TIMEOUT = 60.0  # seconds
_CANNOT_ASK = (OSError, HTTPException)


def raw_state(params: IngestParams, fetch: bool = False) -> dict[str, Any]:
    """`fetch`: whether to fetch again what is out of date."""
    notes: list[str] = []
    fixed = params.source == "synthetic" or (not params.folder and "movielens" in params.source)
    if fixed:
        pinned = {wheel.WHEEL: {"sha256": wheel.WHEEL_SHA256}} if params.source == "movielens-100k" else {}
        return {"source": params.source, "fixed": True, "files": pinned, "notes": notes}
    paths = in_folder(params) if params.folder else _cached(params, fetch, notes)
    if missing := [path for path in paths if not path.is_file()]:
        raise StageError(f"{missing[0]}: no such file; ingest.source: {params.source} reads it")
    own = [RawFile.of(path) for path in paths]
    found = {file.name: {"sha256": file.sha256, "bytes": file.size} for file in own}
    return {"source": params.source, "fixed": False, "files": found, "notes": notes}


def in_folder(params: IngestParams) -> list[Path]:
    """The files in ingest.folder that the stage reads (stages.ingest.source); a zip archive stands for its members."""
    folder = Path(params.folder)
    if not folder.is_dir():
        raise StageError(f"{folder}: no such folder; ingest.folder must name the one that holds the raw files")
    family, _, which = params.source.partition("-")
    if params.source == "table":
        return [folder / params.table.interactions, folder / params.table.items]
    if family == "amazon":
        return [source.path for source in amazon.find(folder, which, params.category)]
    if family == "movielens" and which != "100k":
        archive = folder / f"ml-{which}.zip"
        plain = [folder / name for name in MOVIELENS[which]]
        return [archive] if archive.is_file() and not any(path.is_file() for path in plain) else plain
    found = [paths() for there, paths in _forms(folder, params) if there]
    if len(found) != 1:
        raise StageError(f"{folder}: {'no known form' if not found else 'several forms'} of raw files; gr2 run ingest says more")
    return found[0]


def _forms(folder: Path, params: IngestParams) -> list[tuple[bool, Callable[[], list[Path]]]]:
    """(whether its files are there, which they are), a form each."""

    def named(names: tuple[str, ...]) -> tuple[bool, Callable[[], list[Path]]]:
        paths = [folder / name for name in names]
        return any(path.is_file() for path in paths), lambda: paths

    def of_amazon(generation: str, category: str) -> tuple[bool, Callable[[], list[Path]]]:
        return True, lambda: [source.path for source in amazon.find(folder, generation, category)]

    forms = [(recbole.is_there(folder), lambda: [source.path for source in recbole.find(folder)])]
    if params.source == "movielens-100k":
        return [*forms, named(MOVIELENS["100k"])]
    forms += [named(names) for names in (*MOVIELENS.values(), PAIR)]
    for generation in amazon.LOGS:
        categories = amazon.categories_in(folder, generation)
        forms += [of_amazon(generation, name) for name in categories if params.category in ("", name)]
    return forms


def _cached(params: IngestParams, fetch: bool, notes: list[str]) -> list[Path]:
    """Of Amazon, whose publisher states neither size nor hash: the files in the cache."""
    folder = cache_folder() / params.source
    remotes = amazon.remotes(params.source.partition("-")[2], params.category)
    for remote in remotes:
        path = folder / remote.name
        if path.exists():
            try:
                size, modified = _published(remote)
            except _CANNOT_ASK as error:
                notes.append(f"{remote.url} could not be asked ({error}); the file in the cache is taken")
                continue
            newer = modified is not None and modified > path.stat().st_mtime
            if newer or size not in (None, path.stat().st_size):
                notes.append(f"{remote.url} has a newer version" + ("" if fetch else "; it is not fetched"))
                if fetch:
                    _fetch_again(replace(remote, size=size), path)
    return fetch_all(remotes, folder) if fetch else [folder / remote.name for remote in remotes]


def _published(remote: Remote) -> tuple[int | None, float | None]:
    """Size in bytes and time of the last change (seconds since 1970), where the server gives them."""
    request = urllib.request.Request(remote.url, method="HEAD", headers={"User-Agent": "gr2-pipeline", "Accept-Encoding": "identity"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        length, modified = answer.headers.get("Content-Length", ""), answer.headers.get("Last-Modified")
    try:
        changed = parsedate_to_datetime(modified).timestamp() if modified else None
    except ValueError:
        changed = None
    return int(length) if length.isdigit() else None, changed


def _fetch_again(remote: Remote, path: Path) -> None:
    """The old file stands aside, and comes back when the new one does not come."""
    aside = path.with_name(f".{path.name}.old")
    os.replace(path, aside)
    try:
        fetch_all([remote], path.parent)
    finally:
        if not path.exists():
            os.replace(aside, path)
    aside.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m stages.tools.source_fingerprint", description="The raw files as they stand now, as JSON."
    )
    parser.add_argument("--fetch", action="store_true", help="first fetch again what the publisher has in a newer version")
    options = parser.parse_args()
    try:
        with redirect_stdout(sys.stderr):  # fetching says so
            state = raw_state(load_params("ingest", IngestParams), options.fetch)
    except StageError as error:
        sys.exit(f"ingest: {error}")
    print(json.dumps(state))


if __name__ == "__main__":
    main()
