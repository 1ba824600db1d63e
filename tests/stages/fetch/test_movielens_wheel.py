import zipfile

import pytest

from stages.fetch import movielens_wheel as download
from stages.fetch.fetch import download_cache
from stages.ingest.readers.chunks import Input
from stages.ingest.readers.raw import RawFile
from stages.ingest.sources import movielens_wheel as members
from stages.shared.core.errors import StageError
from stages.shared.sources.published import WHEEL, WHEEL_SHA256
from tests.support.raw_reading import read


def fail_download(command, **kwargs):
    raise AssertionError("nothing should be fetched")


def test_the_real_wheel_is_fetched_once_then_read_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GR2_CACHE", str(tmp_path))
    first = read(source="movielens-100k")
    assert (len(first.interactions), len(first.items), first.rejected) == (100_000, 1_682, [])
    assert len({row[0] for row in first.interactions}) == 943
    whole = RawFile(WHEEL, WHEEL_SHA256, (tmp_path / WHEEL).stat().st_size)
    assert first.log.files[0] == whole and [file.sha256 for file in first.log.files[1:]] == list(members.MEMBERS.values())
    assert [path.name for path in tmp_path.iterdir()] == [WHEEL]  # no scratch left

    monkeypatch.setattr(download.subprocess, "run", fail_download)
    assert read(source="movielens-100k").tables == first.tables


def test_the_default_as_a_plain_reader_gives_it():
    """Row for row against Python's own splitting of the pinned members."""
    got = read(source="movielens-100k")
    with zipfile.ZipFile(download_cache() / WHEEL) as archive:
        inter, item = (archive.read(member).decode().rstrip("\n").split("\n")[1:] for member in members.MEMBERS)
    split = [line.split("\t") for line in inter]
    assert got.interactions == [(u, i, int(t), float(r), row) for row, (u, i, r, t) in enumerate(split, start=2)]
    split = [line.split("\t") for line in item]
    assert got.items == [(i, title, year, "", genres.split(), row) for row, (i, title, year, genres) in enumerate(split, start=2)]


def test_offline_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(StageError) as error:
        download.download_wheel(tmp_path / "cache")
    for words in (WHEEL, WHEEL_SHA256, str(tmp_path / "cache"), "ingest.folder"):
        assert words in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_wheel_with_another_hash_is_refused(tmp_path, monkeypatch):
    """Served by a local index, as a compromised mirror would."""
    index = tmp_path / "index"
    index.mkdir()
    with zipfile.ZipFile(index / WHEEL, "w") as archive:
        archive.writestr("recbole-1.2.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: recbole\nVersion: 1.2.1\n")
        archive.writestr("recbole-1.2.1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("recbole-1.2.1.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(StageError, match="pinned is"):
        download.download_wheel(tmp_path / "cache")
    assert not (tmp_path / "cache" / WHEEL).exists()


def test_a_member_with_another_hash_is_refused(tmp_path):
    with pytest.raises(StageError, match="pinned is"):
        members.check_member(Input(tmp_path / WHEEL, members.ITEM), RawFile("ml-100k.item", "0" * 64, 1))
