import zipfile

import pytest

from stages.ingest import source
from stages.shared.errors import StageError


def fail_download(command, **kwargs):
    raise AssertionError("nothing should be fetched")


def test_the_real_wheel_is_fetched_once_then_read_from_the_cache(tmp_path, monkeypatch):
    first = source.from_wheel(tmp_path)
    assert (len(first.interactions), len(first.items)) == (100_000, 1_682)
    assert len({row.user for row in first.interactions}) == 943
    assert first.sha256 == source.WHEEL_SHA256 and first.size == (tmp_path / source.WHEEL).stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == [source.WHEEL]  # no scratch left

    monkeypatch.setattr(source.subprocess, "run", fail_download)
    assert source.from_wheel(tmp_path) == first


def test_offline_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("GR2_CACHE", str(tmp_path / "cache"))
    with pytest.raises(StageError) as error:
        source.from_wheel()
    for words in (source.WHEEL, source.WHEEL_SHA256, str(tmp_path / "cache"), "ingest.folder"):
        assert words in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_wheel_with_another_hash_is_refused(tmp_path, monkeypatch):
    """Served by a local index, as a compromised mirror would."""
    index = tmp_path / "index"
    index.mkdir()
    with zipfile.ZipFile(index / source.WHEEL, "w") as wheel:
        wheel.writestr("recbole-1.2.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: recbole\nVersion: 1.2.1\n")
        wheel.writestr("recbole-1.2.1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("recbole-1.2.1.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(StageError, match="pinned is"):
        source.from_wheel(tmp_path / "cache")
    assert not (tmp_path / "cache" / source.WHEEL).exists()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], ["*.inter", "found none"]),
        (["a.inter"], ["*.item", "found none"]),
        (["a.inter", "b.inter", "a.item"], ["*.inter", "a.inter, b.inter"]),
        (["u.data"], ["u.item", "no such file"]),
    ],
)
def test_missing_files_are_named(tmp_path, names, said):
    for name in names:
        (tmp_path / name).write_text(
            "user_id:token\titem_id:token\ttimestamp:float\na\tb\t1\n" if name.endswith("inter") else "a\tb\t3\t1\n"
        )
    with pytest.raises(StageError) as error:
        source.from_folder(tmp_path)
    for words in said:
        assert words in str(error.value)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(StageError, match="nowhere: no such folder"):
        source.from_folder(tmp_path / "nowhere")
