"""Fetched raw files: a user's rows are in them, in the workspace and in DVC's cache, even when `ingest` leaves them out."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tasks.domain.raw_data import INGEST, fetch_stages
from tasks.dvc.dir_listing import files_under, listing_in, object_in
from tasks.dvc.lockfile import Entry, locked_hashes
from tasks.project.graph import Graph, holds


@dataclass(frozen=True)
class RawObject:
    """A raw file that may hold the user's rows. `object`: its file in DVC's cache; empty: only in the workspace.

    `rows`: how many of theirs `ingest` reads from the current raw files; null for other versions, which are not read.
    """

    file: str
    object: str
    rows: int | None


def raw_objects(root: Path, graph: Graph, locks: Iterable[dict[str, Entry]], cache: Path, rows: int | None) -> list[RawObject]:
    """`locks`: the workspace's dvc.lock first, then those of git's history. `rows`: of the user, in what `ingest` reads now."""
    outputs = [(name, out) for name in fetch_stages(graph) for out in graph[name].outs]
    current = [out for _, out in outputs if out in graph[INGEST].deps]  # none when ingest reads a folder of the user's
    objects: dict[str, RawObject] = {}
    for place, lock in enumerate(locks):
        for name, out in outputs:
            md5 = locked_hashes(lock.get(name, {}).get("outs")).get(out, {"hash": ""})["hash"] or ""
            files = (listing_in(cache, md5) or {}) if md5.endswith(".dir") else {"": md5} if md5 else {}
            for inside, file_md5 in files.items():
                path = object_in(cache, file_md5)
                if path.exists() and str(path) not in objects:
                    file = f"{out}/{inside}".rstrip("/")
                    objects[str(path)] = RawObject(file, str(path), rows if place == 0 and out in current else None)
    # A folder fetched but never run through DVC, or whose cache was emptied, lies in the workspace alone.
    in_cache = {entry.file for entry in objects.values()}
    present = [f"{out}/{inside}" for _, out in outputs for inside in files_under(root / out)]
    workspace = [
        RawObject(file, "", rows if any(holds(out, file) for out in current) else None) for file in present if file not in in_cache
    ]
    return [*objects.values(), *workspace]
