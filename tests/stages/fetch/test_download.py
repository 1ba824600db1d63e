import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.fetch import download
from stages.fetch.download import download_all
from stages.shared.core.errors import StageError
from stages.shared.sources.published import PublishedFile
from tests.support.range_server import Served, serve

BODY = random.Random(0).randbytes(300_000)
HALF = 150_000
ROOT = Path(__file__).parents[3]
PROGRAM = """\
import sys; from pathlib import Path; from stages.fetch.download import *; download_all([PublishedFile(sys.argv[1])], Path(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def served():
    served = Served()
    served.files["/f.gz"] = BODY
    return served


def remote(address: str, body: bytes = BODY, checked: bool = True) -> PublishedFile:
    url = f"{address}/f.gz"
    return PublishedFile(url, len(body), hashlib.md5(body).hexdigest()) if checked else PublishedFile(url)


def sent(served: Served) -> list[tuple[str | None, int]]:
    return [(asked, count) for _, asked, count in served.requests]


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_file_is_fetched_once(tmp_path, served, capsys):
    with serve(served) as address:
        for _ in range(2):
            assert download_all([remote(address)], tmp_path / "cache") == [tmp_path / "cache" / "f.gz"]
    assert (tmp_path / "cache" / "f.gz").read_bytes() == BODY
    assert sent(served) == [(None, len(BODY))] and visible(tmp_path / "cache") == ["f.gz"]
    said = capsys.readouterr().out
    for words in (f"{address}/f.gz", "300,000 bytes", hashlib.md5(BODY).hexdigest(), str(tmp_path / "cache")):
        assert words in said
    assert said.count("fetching") == 1


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("mark", ["etag", "modified"])
def test_after_a_break_only_the_rest_is_sent(tmp_path, served, checked, mark):
    served.cuts = [HALF]
    if mark == "modified":
        served.etag, served.modified = 'W/"weak"', "Wed, 21 Oct 2015 07:28:00 GMT"
    with serve(served) as address:
        download_all([remote(address, checked=checked)], tmp_path)
    assert (tmp_path / "f.gz").read_bytes() == BODY
    assert sent(served) == [(None, HALF), (f"bytes={HALF}-", HALF)]


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 400), max_size=6), ranges=st.booleans())
def test_however_often_it_breaks_the_bytes_are_right_or_there_is_no_file(cuts, ranges):
    served = Served()
    body = BODY[:1000]
    served.files["/f.gz"], served.cuts, served.ranges = body, list(cuts), ranges
    with serve(served) as address, tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "PAUSE", 0.0)
        path = Path(folder) / "f.gz"
        try:
            download_all([remote(address, body)], Path(folder))
        except StageError:
            assert not path.exists()
            served.cuts = []
            download_all([remote(address, body)], Path(folder))
        assert path.read_bytes() == body and visible(Path(folder)) == ["f.gz"]
    if ranges:
        assert sum(count for _, count in sent(served)) == len(body)  # no byte twice


def test_after_kill_9_it_goes_on(tmp_path, served):
    served.cuts, served.stall = [HALF], True
    program = PROGRAM
    with serve(served) as address:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        child = subprocess.Popen([sys.executable, "-c", program, f"{address}/f.gz", str(tmp_path)], env=environment)
        part = tmp_path / ".f.gz.part"
        deadline = time.monotonic() + 600
        while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        served.stall = False
        there = part.stat().st_size
        assert 0 < there <= HALF and not (tmp_path / "f.gz").exists()
        download_all([remote(address)], tmp_path)
    assert (tmp_path / "f.gz").read_bytes() == BODY
    assert sent(served)[1:] == [(f"bytes={there}-", len(BODY) - there)]


def broken_off(served: Served, address: str, folder: Path, monkeypatch) -> None:
    """Leaves the first half in the cache."""
    with monkeypatch.context() as patch:
        patch.setattr(download, "ATTEMPTS", 1)
        served.cuts, served.statuses = [HALF], [200, 503, 503]
        with pytest.raises(StageError, match="Run again to go on"):
            download_all([remote(address)], folder)
    served.statuses, served.requests = [], []
    if served.etag:
        assert (folder / ".f.gz.part").read_bytes() == BODY[:HALF]


@pytest.mark.parametrize("change", ["etag", "no ranges", "no mark", "mark lost", "mark of another", "wrong range"])
def test_what_cannot_be_resumed_starts_anew(tmp_path, served, monkeypatch, change):
    new = BODY[::-1]
    mark = tmp_path / ".f.gz.part.json"
    with serve(served) as address:
        if change == "no mark":
            served.etag = ""
        broken_off(served, address, tmp_path, monkeypatch)
        served.files["/f.gz"] = new
        if change == "etag":
            served.etag = '"two"'
        elif change == "no ranges":
            served.ranges = False
        elif change == "mark lost":
            mark.write_text("{")
        elif change == "mark of another":
            mark.write_text(json.dumps({**json.loads(mark.read_text()), "url": f"{address}/g.gz"}))
        elif change == "wrong range":
            served.wrong_range = True
        download_all([remote(address, new, checked=change != "etag")], tmp_path)
    assert (tmp_path / "f.gz").read_bytes() == new
    assert served.requests[-1][2] == len(new) and visible(tmp_path) == ["f.gz"]


def test_a_resumed_file_with_the_wrong_checksum_is_fetched_anew(tmp_path, served, monkeypatch):
    with serve(served) as address:
        broken_off(served, address, tmp_path, monkeypatch)
        (tmp_path / ".f.gz.part").write_bytes(bytes(HALF))
        download_all([remote(address)], tmp_path)
    assert (tmp_path / "f.gz").read_bytes() == BODY
    assert sent(served) == [(f"bytes={HALF}-", HALF), (None, len(BODY))]


def test_a_stale_part_is_never_taken_for_whole(tmp_path, served):
    """As long as the file, but of unknown origin; and longer than the file."""
    for length in (len(BODY), len(BODY) + 5):
        (tmp_path / ".f.gz.part").write_bytes(bytes(length))
        with serve(served) as address:
            download_all([remote(address, checked=False)], tmp_path)
        assert (tmp_path / "f.gz").read_bytes() == BODY
        (tmp_path / "f.gz").unlink()


def test_a_part_killed_just_before_the_move_needs_no_byte_more(tmp_path, served, monkeypatch):
    with serve(served) as address:
        broken_off(served, address, tmp_path, monkeypatch)
        (tmp_path / ".f.gz.part").write_bytes(BODY)
        download_all([remote(address)], tmp_path)
    assert (tmp_path / "f.gz").read_bytes() == BODY and served.requests == []


@pytest.mark.parametrize(("size", "md5", "said"), [(len(BODY), "0" * 32, "has md5"), (len(BODY) + 1, "", "published are 300,001")])
def test_another_file_than_published_is_refused(tmp_path, served, size, md5, said):
    with serve(served) as address, pytest.raises(StageError) as error:
        download_all([PublishedFile(f"{address}/f.gz", size, md5)], tmp_path)
    assert said in str(error.value) and "ingest.folder" in str(error.value)
    assert visible(tmp_path) == [] and len(served.requests) == 1


def test_a_file_in_the_cache_that_is_not_the_published_one_is_replaced(tmp_path, served):
    (tmp_path / "f.gz").write_bytes(b"cut short")
    with serve(served) as address:
        download_all([remote(address)], tmp_path)
    assert (tmp_path / "f.gz").read_bytes() == BODY


def test_a_busy_server_is_asked_again_and_not_for_ever(tmp_path, served):
    with serve(served) as address:
        served.statuses = [503, 429, 500]
        download_all([remote(address)], tmp_path)
        assert len(served.requests) == 4
        (tmp_path / "f.gz").unlink()
        served.statuses, served.requests = [503] * 99, []
        with pytest.raises(StageError, match="503"):
            download_all([remote(address)], tmp_path)
        assert len(served.requests) == download.ATTEMPTS


@pytest.mark.parametrize("status", [404, 403])
def test_a_file_that_is_not_there_is_named_at_once(tmp_path, served, status):
    served.statuses = [status]
    with serve(served) as address, pytest.raises(StageError) as error:
        download_all([remote(address)], tmp_path)
    for words in (str(status), f"{address}/f.gz", "300,000 bytes", hashlib.md5(BODY).hexdigest(), str(tmp_path), "ingest.folder"):
        assert words in str(error.value)
    assert len(served.requests) == 1


def test_offline_names_every_file_that_is_needed(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        (tmp_path / "there.gz").write_bytes(b"x")
        names = ("one.gz", "there.gz", "two.gz")
        with pytest.raises(StageError) as error:
            download_all([PublishedFile(f"{address}/{name}") for name in names], tmp_path)
    said = str(error.value)
    assert f"{address}/one.gz" in said and f"{address}/two.gz" in said and "there.gz" not in said
    assert "no checksum is published" in said and str(tmp_path) in said and "ingest.folder" in said
    assert visible(tmp_path) == ["there.gz"]


def test_two_at_once_fetch_it_once(tmp_path, served):
    program = PROGRAM
    with serve(served) as address:
        command = [sys.executable, "-c", program, f"{address}/f.gz", str(tmp_path)]
        children = [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}) for _ in range(2)]
        assert [child.wait() for child in children] == [0, 0]
    assert (tmp_path / "f.gz").read_bytes() == BODY and sent(served) == [(None, len(BODY))]
