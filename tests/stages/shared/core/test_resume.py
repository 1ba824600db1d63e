import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stages.shared.core.resume import ResumePoints

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


def files(root) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@given(hnp.arrays(st.sampled_from([np.float32, np.int64, np.bool_]), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)))
def test_what_was_saved_is_loaded(tmp_path_factory, array):
    points = ResumePoints("toy", "key", tmp_path_factory.mktemp("resume"))
    points.save("a", array)
    loaded = points.load("a")
    assert loaded.dtype == array.dtype and loaded.shape == array.shape and loaded.tobytes() == array.tobytes()


def test_only_under_its_own_name_key_and_stage(tmp_path):
    ResumePoints("toy", "key", tmp_path).save("a", ARRAY)
    for stage, key, name in [("toy", "key", "b"), ("toy", "other", "a"), ("other", "key", "a")]:
        assert ResumePoints(stage, key, tmp_path).load(name) is None
    assert (ResumePoints("toy", "key", tmp_path).load("a") == ARRAY).all(), "a later run finds it"


def test_every_cut_and_every_changed_byte_is_noticed(tmp_path, capsys):
    points = ResumePoints("toy", "key", tmp_path)
    points.save("a", ARRAY)
    path = tmp_path / "toy/key/a.part"
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place])
        assert points.load("a") is None
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert points.load("a") is None
    assert "a.part: damaged, so this part is computed again" in capsys.readouterr().out
    points.save("a", ARRAY)
    assert path.read_bytes() == whole


def test_a_file_half_written_is_no_part(tmp_path, monkeypatch):
    points = ResumePoints("toy", "key", tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("stages.shared.core.resume.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        points.save("a", ARRAY)
    assert points.load("a") is None
    monkeypatch.undo()
    points.save("a", ARRAY)
    assert files(tmp_path) == ["toy/key/a.part"]


def test_clear_takes_other_keys_of_the_stage_along_and_no_other_stage(tmp_path):
    for stage, key in [("toy", "old"), ("toy", "new"), ("other", "old")]:
        ResumePoints(stage, key, tmp_path).save("a", ARRAY)
    ResumePoints("toy", "new", tmp_path).clear()
    assert files(tmp_path) == ["other/old/a.part"]
    ResumePoints("toy", "new", tmp_path).clear()


def test_objects_are_refused(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        ResumePoints("toy", "key", tmp_path).save("a", np.array([{}], dtype=object))
    assert files(tmp_path) == []
