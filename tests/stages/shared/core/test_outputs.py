import math

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json, stage_outputs, write_json


class ToyMetrics(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str
    count: int | None = None


class AnyMetrics(BaseModel):
    model_config = ConfigDict(extra="allow")


def files(root) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def run(root, text: str, fail: Exception | None = None, main: bool = True) -> None:
    with stage_outputs("toy", root, main) as outputs:
        outputs.path("table.txt").write_text(text)
        outputs.path("model/weights.txt").write_text(text)
        outputs.metrics({"text": text}, ToyMetrics)
        if fail:
            raise fail


def test_outputs_appear_whole(tmp_path):
    with stage_outputs("toy", tmp_path) as outputs:
        outputs.path("table.txt").write_text("a")
        assert files(tmp_path) == {".toy.partial/table.txt": "a"}
    assert files(tmp_path) == {"toy/table.txt": "a"} and not (tmp_path / ".toy.partial").exists()


@pytest.mark.parametrize("error", [StageError("x"), KeyboardInterrupt(), OSError(28, "full"), SystemExit(3)])
def test_a_failing_stage_leaves_the_outputs_of_the_run_before(tmp_path, error):
    run(tmp_path, "first")
    before = files(tmp_path)
    with pytest.raises(type(error)):
        run(tmp_path, "second", error)
    assert files(tmp_path) == before and not list(tmp_path.glob(".*"))


def test_a_first_run_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(StageError):
        run(tmp_path, "first", StageError("x"))
    assert list(tmp_path.iterdir()) == []


def test_a_rerun_replaces_folders_whole_and_leaves_strangers_alone(tmp_path):
    run(tmp_path, "first")
    (tmp_path / "toy/model/old_shard.txt").write_text("stale")
    (tmp_path / "toy/of_another.txt").write_text("kept")
    run(tmp_path, "second")
    found = files(tmp_path)
    assert sorted(found) == ["toy/metrics.json", "toy/model/weights.txt", "toy/of_another.txt", "toy/table.txt"]
    assert found["toy/model/weights.txt"] == "second" and found["toy/of_another.txt"] == "kept"


def test_what_a_killed_run_left_is_cleared(tmp_path):
    (tmp_path / ".toy.partial").mkdir()
    (tmp_path / ".toy.partial/half.txt").write_text("half")
    run(tmp_path, "whole")
    assert "toy/half.txt" not in files(tmp_path)


def test_only_the_main_process_publishes(tmp_path):
    run(tmp_path, "first", main=False)
    assert files(tmp_path) == {} and not list(tmp_path.glob(".*"))
    with stage_outputs("toy", tmp_path) as outputs:
        outputs.path("table.txt").write_text("main")
        run(tmp_path, "other", main=False)
        assert outputs.path("table.txt").read_text() == "main"
    assert files(tmp_path) == {"toy/table.txt": "main"}


@pytest.mark.parametrize(
    ("values", "key"),
    [({"loss": math.nan}, "loss"), ({"a": {"b": [1.0, math.inf]}}, r"a\.b\.1"), ({"a": [{"c": -math.inf}]}, r"a\.0\.c")],
)
def test_a_number_that_is_none_is_refused_by_its_key(tmp_path, values, key):
    run(tmp_path, "first")
    before = files(tmp_path)
    with pytest.raises(StageError, match=rf"metrics\.json: {key} is not a finite number"), stage_outputs("toy", tmp_path) as outputs:
        outputs.metrics(values, AnyMetrics)
    assert files(tmp_path) == before


@pytest.mark.parametrize("values", [{"text": "a", "other": 1}, {}, {"text": 1}])
def test_metrics_unlike_their_model_are_refused(tmp_path, values):
    run(tmp_path, "first")
    before = files(tmp_path)
    with pytest.raises(ValidationError), stage_outputs("toy", tmp_path) as outputs:
        outputs.metrics(values, ToyMetrics)
    assert files(tmp_path) == before


def test_metrics_are_written_without_the_defaults_of_their_model(tmp_path):
    run(tmp_path, "a")
    assert read_json(tmp_path / "toy/metrics.json") == {"text": "a"}


def test_equal_values_give_equal_bytes(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [0.5]})
    write_json(tmp_path / "b.json", {"a": [0.5], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json") == {"a": [0.5], "b": 1}


@pytest.mark.parametrize(
    ("content", "message"), [(b"{", "not valid UTF-8 JSON"), (b"\xff", "not valid UTF-8 JSON"), (None, "no such file; .*gr2 run")]
)
def test_unreadable_json(tmp_path, content, message):
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(StageError, match=message):
        read_json(tmp_path / "x.json")
