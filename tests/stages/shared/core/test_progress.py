"""Progress as a stage tells it: the lines are those that gr2 reads, one process speaks, and without gr2 there is a bar."""

import pytest

from stages.shared.core import progress as progress_module
from stages.shared.core.progress import Progress, note, tracked
from tasks.system import progress as reader


@pytest.fixture
def under_gr2(monkeypatch: pytest.MonkeyPatch) -> None:
    assert progress_module.VARIABLE == reader.VARIABLE
    monkeypatch.setenv(reader.VARIABLE, "lines")


def told(capsys: pytest.CaptureFixture[str]) -> list[reader.StageProgress | None]:
    return [reader.read_progress(line) for line in capsys.readouterr().err.splitlines() if line.strip()]


@pytest.mark.usefixtures("under_gr2")
def test_the_first_and_the_last_are_told_and_few_between(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked(range(1000), "rounds")) == list(range(1000))
    lines = told(capsys)
    assert (lines[0], lines[-1]) == (reader.StageProgress(0, 1000, "rounds"), reader.StageProgress(1000, 1000, "rounds"))
    assert len(lines) < 10
    with Progress("u.data", None) as progress:
        progress.add(512)
    assert told(capsys) == [reader.StageProgress(0, 0, "u.data")]


@pytest.mark.usefixtures("under_gr2")
def test_a_line_is_whole_behind_the_bar_of_a_library(capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    sys.stderr.write("\rLoading:  50%|#####     | 1/2 [00:01<00:01,  1.0it/s]")
    Progress("rows", 7)
    note("3 rows were bad")
    text = capsys.readouterr().err
    lines = [line for line in text.replace("\r", "\n").splitlines() if line]
    assert reader.read_progress(lines[1]) == reader.StageProgress(0, 7, "rows") and reader.read_note(lines[2]) == "3 rows were bad"


@pytest.mark.usefixtures("under_gr2")
def test_of_several_processes_the_main_one_speaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    assert list(tracked("ab", "letters")) == ["a", "b"]
    assert told(capsys) == []


def test_without_gr2_there_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(reader.VARIABLE, raising=False)
    monkeypatch.setattr(progress_module, "BAR_AFTER_S", 0.0)
    assert list(tracked(iter("ab"), "letters", total=2)) == ["a", "b"]
    assert "letters: 100%" in capsys.readouterr().err
    note("3 rows were bad")
    assert capsys.readouterr().out == "3 rows were bad\n"
