"""The raw files as they stand: the same names and hashes as an ingest records, and what its publisher has anew."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stages.ingest import amazon, wheel
from stages.ingest.params import IngestParams
from stages.shared.core.errors import StageError
from stages.tools import source_fingerprint
from tests.support.raw_reading import read, write

ROOT = Path(__file__).parents[3]
CSV = {"ratings__csv": "userId,movieId,rating,timestamp\n1,2,3,4\n", "movies__csv": "movieId,title,genres\n2,T,X\n"}
REVIEW = '{"reviewerID": "A", "asin": "B", "unixReviewTime": 5, "overall": 4}\n'
META = "{'asin': 'B', 'title': 'T', 'categories': [['X', 'Y']]}\n"
TABLE = {"interactions": "log.csv", "items": "things.csv"}
FORMS = {  # source, further parameters, files
    "u.data": ("movielens-100k", {}, {"u__data": "1\t2\t3\t4\n", "u__item": "2|T|x|||" + "|".join("0" * 19)}),
    "recbole": (
        "movielens-100k",
        {},
        {"x__inter": "user_id:token\titem_id:token\ttimestamp:float\n1\t2\t4\n", "x__item": "item_id:token\ttitle:token\n2\tT\n"},
    ),
    "25m": ("movielens-25m", {}, CSV),
    "recognised": ("folder", {}, CSV),
    "pair": ("folder", {}, {"sequences__txt": "1 2\n", "items__jsonl": '{"item_id": 2, "title": "T"}\n'}),
    "amazon": ("amazon-2014", {"category": "Toys"}, {"reviews_Toys_5__json": REVIEW, "meta_Toys__json": META}),
    "amazon recognised": ("folder", {}, {"reviews_Toys__json": REVIEW, "ratings_Toys__csv": "A,B,4,5\n", "meta_Toys__json": META}),
    "table": ("table", {"table": TABLE}, {"log__csv": "user,item,timestamp\n1,2,4\n", "things__csv": "item,title\n2,T\n"}),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_files_that_the_stage_would_read(tmp_path, form):
    source, params, files = FORMS[form]
    folder = write(tmp_path / "raw", README="about", **files)
    given = IngestParams.model_validate({"source": source, "folder": str(folder), **params})
    recorded = read(folder, source, **{key: getattr(given, key) for key in params}).log.files
    found = source_fingerprint.raw_state(given)
    assert found["files"] == {file.name: {"sha256": file.sha256, "bytes": file.size} for file in recorded} and not found["fixed"]
    last = folder / recorded[0].name
    last.write_text(last.read_text() + "\n")
    again = source_fingerprint.raw_state(given)["files"]
    assert again[last.name]["sha256"] == hashlib.sha256(last.read_bytes()).hexdigest() != found["files"][last.name]["sha256"]
    assert {name for name in again if again[name] != found["files"][name]} == {last.name}


def test_an_archive_stands_for_its_members(tmp_path):
    folder = write(tmp_path / "raw", **{"ml-1m__zip": b"bytes"})
    found = source_fingerprint.raw_state(IngestParams(source="movielens-1m", folder=str(folder)))
    assert found["files"] == {"ml-1m.zip": {"sha256": hashlib.sha256(b"bytes").hexdigest(), "bytes": 5}}


def test_what_can_never_change_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setenv("GR2_CACHE", str(tmp_path / "nothing"))
    for source in ("movielens-100k", "movielens-1m", "movielens-25m", "synthetic"):
        found = source_fingerprint.raw_state(IngestParams(source=source), fetch=True)
        assert found["fixed"] and found["files"] == ({wheel.WHEEL: {"sha256": wheel.WHEEL_SHA256}} if source == "movielens-100k" else {})
    assert not (tmp_path / "nothing").exists()


def test_wrong_folders(tmp_path):
    with pytest.raises(StageError, match="no such folder"):
        source_fingerprint.raw_state(IngestParams(source="folder", folder=str(tmp_path / "nowhere")))
    folder = write(tmp_path / "raw", README="about")
    with pytest.raises(StageError, match="no known form"):
        source_fingerprint.raw_state(IngestParams(source="folder", folder=str(folder)))
    write(folder, u__data="1\t2\t3\t4\n")
    with pytest.raises(StageError, match=r"u\.item: no such file"):
        source_fingerprint.raw_state(IngestParams(source="folder", folder=str(folder)))


class Quiet(SimpleHTTPRequestHandler):
    """Says size and Last-Modified, to HEAD too."""

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def published(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_newer_version_is_fetched(tmp_path, monkeypatch):
    site = write(tmp_path / "site", **{"reviews_Toys_5__json__gz": REVIEW, "meta_Toys__json__gz": META})
    log, cached = site / "reviews_Toys_5.json.gz", tmp_path / "cache" / "amazon-2014" / "reviews_Toys_5.json.gz"
    monkeypatch.setenv("GR2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    params = IngestParams(source="amazon-2014", category="Toys")
    with published(site) as address:
        monkeypatch.setitem(amazon._ADDRESSES, "2014", (f"{address}/reviews_{{C}}_5.json.gz", f"{address}/meta_{{C}}.json.gz"))
        with pytest.raises(StageError, match="no such file"):
            source_fingerprint.raw_state(params)
        first = source_fingerprint.raw_state(params, fetch=True)
        assert first["files"][log.name]["sha256"] == hashlib.sha256(REVIEW.encode()).hexdigest()
        assert source_fingerprint.raw_state(params, fetch=True) == {**first, "notes": []}
        log.write_text(REVIEW * 2)  # larger
        seen = source_fingerprint.raw_state(params)
        assert seen["files"] == first["files"] and "newer version; it is not fetched" in seen["notes"][0]
        assert source_fingerprint.raw_state(params, fetch=True)["files"][log.name]["bytes"] == 2 * len(REVIEW)
        log.write_text(REVIEW + REVIEW.replace("4", "3"))  # as large, but younger
        later = cached.stat().st_mtime + 60
        os.utime(log, (later, later))
        assert source_fingerprint.raw_state(params, fetch=True)["files"][log.name]["sha256"] == hashlib.sha256(log.read_bytes()).hexdigest()
        last = cached.read_bytes()
        log.write_text(REVIEW * 3)
        monkeypatch.setattr(source_fingerprint, "fetch_all", broken)
        with pytest.raises(StageError, match="broke off"):
            source_fingerprint.raw_state(params, fetch=True)
        assert cached.read_bytes() == last  # the old one is back
        monkeypatch.undo()
    monkeypatch.setenv("GR2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(amazon._ADDRESSES, "2014", ("http://127.0.0.1:9/reviews_{C}_5.json.gz", "http://127.0.0.1:9/meta_{C}.json.gz"))
    alone = source_fingerprint.raw_state(params, fetch=True)
    assert len(alone["notes"]) == 2 and "could not be asked" in alone["notes"][0] and cached.read_bytes() == last


def broken(*args):
    raise StageError("broke off")


def test_one_line_of_json(tmp_path):
    write(tmp_path / "raw", **CSV)
    (tmp_path / "params.yaml").write_text("ingest: {source: folder, folder: raw}\n")
    command = [sys.executable, "-m", "stages.tools.source_fingerprint", "--fetch"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert set(json.loads(result.stdout)["files"]) == {"ratings.csv", "movies.csv"} and len(result.stdout.splitlines()) == 1
    (tmp_path / "raw" / "movies.csv").unlink()
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and result.stderr.startswith("ingest: raw/movies.csv: no such file") and "Traceback" not in result.stderr
