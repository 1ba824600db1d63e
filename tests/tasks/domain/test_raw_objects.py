"""Fetched raw files hold a user's rows: data/raw and its versions in DVC's cache are named, and the proof waits for them."""

import hashlib
import json
from pathlib import Path

import pytest

from tasks.domain.raw_objects import RawObject, raw_objects
from tasks.dvc.dir_listing import listing_hash
from tasks.dvc.lockfile import Entry
from tasks.project.graph import read_graph

GRAPH = """
stages:
  fetch: {cmd: fetch, outs: [data/raw]}
  ingest: {cmd: ingest, deps: ["${ingest.folder}"], outs: [data/ingest]}
"""


def store(cache: Path, content: str) -> tuple[str, Path]:
    """A folder with the file log.csv, as an object and a listing in `cache`: its hash, and the path of the object."""
    md5 = hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()
    folder = listing_hash({"log.csv": md5})
    for name, text in ((md5, content), (folder, json.dumps([{"md5": md5, "relpath": "log.csv"}]))):
        (cache / name[:2]).mkdir(parents=True, exist_ok=True)
        (cache / name[:2] / name[2:]).write_text(text)
    return folder, cache / md5[:2] / md5[2:]


@pytest.mark.parametrize("folder", ["data/raw", "mine"])
def test_every_version_of_data_raw(tmp_path: Path, folder: str) -> None:
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    (tmp_path / "params.yaml").write_text(f"ingest: {{folder: {folder}}}\n")
    cache = tmp_path / "cache"
    now, new = store(cache, "new")
    before, old = store(cache, "old")
    locks: list[dict[str, Entry]] = [{"fetch": {"outs": [{"path": "data/raw", "md5": md5}]}} for md5 in (now, before, now)]
    rows = 3 if folder == "data/raw" else None
    graph = read_graph(tmp_path)
    expected = [RawObject("data/raw/log.csv", str(new), rows), RawObject("data/raw/log.csv", str(old), None)]
    assert raw_objects(tmp_path, graph, locks, cache, 3) == expected
    old.unlink()
    assert raw_objects(tmp_path, graph, locks, cache, 3) == expected[:1]
    new.unlink()
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "raw" / "log.csv").touch()
    assert raw_objects(tmp_path, graph, locks, cache, 3) == [RawObject("data/raw/log.csv", "", rows)]
