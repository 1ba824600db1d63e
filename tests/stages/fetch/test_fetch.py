"""What the stage leaves in data/raw, and what it fetches again."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stages.fetch import amazon_files, fetch, news
from stages.ingest.params import IngestParams
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import stage_outputs
from stages.shared.core.params import validate_section
from stages.shared.sources.params import FetchParams
from tests.support.raw_reading import write

ROOT = Path(__file__).parents[3]
REVIEW = '{"reviewerID": "A", "asin": "B", "unixReviewTime": 5, "overall": 4}\n'
META = "{'asin': 'B', 'title': 'T', 'categories': [['X', 'Y']]}\n"


def fetched(root: Path, **section: str) -> dict[str, bytes]:
    """The stage's output, by name."""
    shutil.rmtree(root / "data", ignore_errors=True)
    with stage_outputs("fetch", root / "data", final=root / "data") as outputs:
        fetch.fetch(FetchParams.model_validate(section), outputs)
    return {path.name: path.read_bytes() for path in (root / "data" / "raw").iterdir()}


def test_a_folder_of_the_users_and_the_synthetic_world_need_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("GR2_CACHE", str(tmp_path / "nothing"))
    for section in ({"source": "synthetic"}, {"source": "table", "folder": "/mine"}, {"source": "movielens-25m", "folder": "../mine"}):
        assert fetched(tmp_path, **section) == {}
    assert not (tmp_path / "nothing").exists()


def test_an_edited_raw_file_does_not_change_the_download(tmp_path, monkeypatch):
    monkeypatch.setenv("GR2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "download_wheel", lambda cache: write(cache, x__whl="pinned") / "x.whl")
    assert fetched(tmp_path, source="movielens-100k") == {"x.whl": b"pinned"}
    (tmp_path / "data/raw/x.whl").write_text("edited")
    assert (tmp_path / "cache/x.whl").read_text() == "pinned"


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"folder": ""}, "data/raw is the one that the stage fetch fills"),
        ({"folder": "../x/"}, "write the path as ../x"),
        ({"source": "table"}, "source: table needs folder"),
        ({"source": "folder", "folder": "data/raw"}, "source: folder needs folder"),
        ({"source": "amazon-2018"}, "needs category"),
    ],
)
def test_keys_that_do_not_go_together(section, words):
    for model in (FetchParams, IngestParams):
        with pytest.raises(StageError, match=r"params\.yaml: ingest") as error:
            validate_section("ingest", model, section, "params.yaml")
        assert words in str(error.value)


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


def test_a_newer_version_is_fetched(tmp_path, monkeypatch, capsys):
    site = write(tmp_path / "site", **{"reviews_Toys_5__json__gz": REVIEW, "meta_Toys__json__gz": META})
    log, cached = site / "reviews_Toys_5.json.gz", tmp_path / "cache" / "amazon-2014" / "reviews_Toys_5.json.gz"
    monkeypatch.setenv("GR2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    toys = {"source": "amazon-2014", "category": "Toys"}
    with published(site) as address:
        monkeypatch.setitem(amazon_files.ADDRESSES, "2014", (f"{address}/reviews_{{C}}_5.json.gz", f"{address}/meta_{{C}}.json.gz"))
        first = fetched(tmp_path, **toys)
        assert first == {log.name: REVIEW.encode(), "meta_Toys.json.gz": META.encode()}
        capsys.readouterr()
        assert fetched(tmp_path, **toys) == first and capsys.readouterr().out == ""
        log.write_text(REVIEW * 2)  # larger
        assert len(fetched(tmp_path, **toys)[log.name]) == 2 * len(REVIEW) and "newer version" in capsys.readouterr().out
        log.write_text(REVIEW + REVIEW.replace("4", "3"))  # as large, but younger
        later = cached.stat().st_mtime + 60
        os.utime(log, (later, later))
        assert fetched(tmp_path, **toys)[log.name] == log.read_bytes()
        last = cached.read_bytes()
        log.write_text(REVIEW * 3)
        monkeypatch.setattr(news, "download_all", broken)
        with pytest.raises(StageError, match="broke off"):
            fetched(tmp_path, **toys)
        assert cached.read_bytes() == last  # the old one is back
        monkeypatch.undo()
    monkeypatch.setenv("GR2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(amazon_files.ADDRESSES, "2014", ("http://127.0.0.1:9/reviews_{C}_5.json.gz", "http://127.0.0.1:9/meta_{C}.json.gz"))
    capsys.readouterr()
    assert fetched(tmp_path, **toys)[log.name] == last and capsys.readouterr().out.count("could not be asked") == 2


def broken(*args):
    raise StageError("broke off")


def test_as_a_command(tmp_path):
    (tmp_path / "params.yaml").write_text("ingest: {source: folder, folder: mine, max_history: 3}\n")
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw/of_an_earlier_source").touch()
    command = [sys.executable, "-m", "stages.fetch"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=tmp_path, env=env, check=True)
    assert [path.name for path in (tmp_path / "data").rglob("*")] == ["raw"]
    (tmp_path / "params.yaml").write_text("ingest: {source: folder}\n")
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "source: folder needs folder" in result.stderr and "Traceback" not in result.stderr
