"""The files of a folder that DVC tracks: from its listing in the cache, or from the folder itself."""

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from tasks.dvc.repo import open_repo

Listing = dict[str, str]  # path in the folder, with slashes -> md5
Member = list[str | int | None]  # path in the folder, md5, bytes
Change = tuple[str, str]  # path from the root, what became of it


@cache
def cache_folder(root: Path) -> Path:
    """Where DVC keeps objects by md5."""
    with open_repo(root) as repo:
        return Path(repo.cache.local.path)


def object_path(root: Path, md5: str) -> Path:
    """Of an object in the cache; a folder's listing ends in .dir."""
    return object_in(cache_folder(root), md5)


def object_in(cache: Path, md5: str) -> Path:
    """The same from the folder of a DVC cache."""
    return cache / md5[:2] / md5[2:]


def read_json(file: Path) -> Any:
    """Empty where there is none, or none that can be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def cached_listing(root: Path, md5: str) -> Listing | None:
    """What the DVC cache of the project at `root` says is in the folder with this hash; None where it does not hold the listing, or
    holds something else under the name. Not to be called while DVC is open there: its lock would be waited for forever."""
    return listing_in(cache_folder(root), md5)


def listing_in(cache: Path, md5: str) -> Listing | None:
    """The same from the folder of a DVC cache."""
    try:
        text = object_in(cache, md5).read_bytes()
    except OSError:
        return None
    # A cut or edited listing would name files that the folder never held.
    if hashlib.md5(text, usedforsecurity=False).hexdigest() + ".dir" != md5:
        return None
    return {entry["relpath"]: entry["md5"] for entry in json.loads(text)}


def listing_hash(listing: Listing) -> str:
    """DVC's hash of a folder with these files."""
    # As dvc_data.hashfile.tree.Tree writes it: another order of files or keys would give another hash.
    entries = sorted(({"md5": md5, "relpath": path} for path, md5 in listing.items()), key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def listing_changes(folder: str, before: Listing, now: Listing) -> list[Change]:
    """The files of `folder` that differ between two of its listings, by name."""
    names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    words = {name: "is new" if name not in before else "is missing" if name not in now else "modified" for name in names}
    return [(f"{folder}/{name}", words[name]) for name in names]


def files_under(folder: Path) -> list[str]:
    """Every file below `folder`, links to folders followed as DVC does, with slashes."""
    names_below = []
    for folder_path, _, names in os.walk(folder, followlinks=True):
        inside = os.path.relpath(folder_path, folder)
        names_below += [name if inside == "." else f"{inside}/{name}" for name in names]
    return sorted(names_below)


def file_md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def members(root: Path, output: str, md5: str) -> list[Member] | None:
    """[path, md5, bytes] of every file of the folder `output`; None for a file, or where the cache does not hold the listing."""
    listing = cached_listing(root, md5) if md5.endswith(".dir") else None
    if listing is None:
        return None
    return [[path, md5, _size(root / output / path)] for path, md5 in listing.items()]


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
