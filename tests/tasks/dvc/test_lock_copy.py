"""A dvc.lock that a killed DVC left cut, at any byte, is mended; what somebody did to it by hand is left alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.dvc import lockfile, repo
from tasks.dvc.lock_copy import NOTES, SET_ASIDE, keep
from tasks.dvc.lockfile import read_lock
from tasks.run import interrupted
from tasks.system.errors import ProjectError
from tests.support import dvc_toy


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages have run; dvc.lock is not committed."""
    root = dvc_toy.make(tmp_path_factory.mktemp("lock") / "toy")
    dvc_toy.dvc(root, "repro")
    return root


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    return dvc_toy.copy(finished, tmp_path / "toy")


def state(root: Path) -> dict[str, object]:
    repo.mend_lock(root)
    return dict(read_lock(root))


def test_cut_at_any_byte(project: Path) -> None:
    """DVC writes `c` again, with another entry, and is killed after so many bytes: every other stage keeps its entry, c one of the two."""
    old = read_lock(project)
    interrupted.journal_start(project, "c")
    new_text = (project / "dvc.lock").read_text().replace("x: 1\n    outs:\n    - path: data/c/", "x: 7\n    outs:\n    - path: data/c/")
    (project / "dvc.lock").write_text(new_text)
    new = read_lock(project)
    assert new["c"] != old["c"]
    ends = {position for position, letter in enumerate(new_text, 1) if letter == "\n"}
    for size in sorted({*range(60), *range(0, len(new_text), 17), *ends}):
        (project / "dvc.lock").write_text(new_text[:size])
        mended = state(project)
        assert list(mended) == list(old), size
        assert mended["c"] in (old["c"], new["c"]) and all(mended[name] == old[name] for name in "abd"), size
    assert mended == new, "the whole file is no cut one"


def test_cut_in_the_last_stage_which_is_new(project: Path) -> None:
    """At the end of a line the text is valid YAML: only what the stage makes tells that its entry is not whole."""
    text = (project / "dvc.lock").read_text()
    (project / "dvc.lock").write_text(text[: text.index("  d:\n")])
    before = read_lock(project)
    interrupted.journal_start(project, "d")
    for size in (position for position, letter in enumerate(text, 1) if letter == "\n" and text.index("  d:\n") <= position < len(text)):
        (project / "dvc.lock").write_text(text[:size])
        assert state(project) == before, size
    (project / "dvc.lock").write_text(text)
    assert list(state(project)) == list("abcd")


def test_without_a_copy_the_last_commit_and_then_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "dvc.lock").write_text("")
    assert read_lock(project) == {} and not (project / "dvc.lock").exists()
    dvc_toy.dvc(project, "repro", "a")
    dvc_toy.commit(project, "a")
    committed = read_lock(project)
    (project / "dvc.lock").write_text("schema: '2.0'\nst")
    assert read_lock(project) == committed
    assert (project / SET_ASIDE).read_text() == "schema: '2.0'\nst"
    assert capsys.readouterr().err.count("gr2: dvc.lock: a DVC was killed while it wrote it") == 2


def test_an_emptied_file_that_the_next_dvc_wrote_into(project: Path) -> None:
    """A stage side by side with the killed one finds an empty dvc.lock, and writes one with its own entry alone."""
    old = read_lock(project)
    interrupted.journal_start(project, "c")
    (project / "dvc.lock").write_text(lockfile.as_dvc_writes({"b": old["b"]}))
    assert state(project) == old


def test_what_was_done_by_hand_is_left_alone(project: Path) -> None:
    text = (project / "dvc.lock").read_text()
    with repo.dvc_lock(project):
        keep(project)
    fewer = text[: text.index("  d:\n")]
    (project / "dvc.lock").write_text(fewer)  # nothing is noted: somebody removed it
    assert list(state(project)) == list("abc")
    interrupted.journal_start(project, "a")
    dvc_toy.commit(project, "three stages")
    (project / "dvc.lock").write_text(text)
    with repo.dvc_lock(project):
        keep(project)
    dvc_toy.call(project, "git", "checkout", "--quiet", "dvc.lock")  # after a kill, somebody took the last commit's
    assert list(state(project)) == list("abc")
    for broken in (text.replace("  b:\n", "<<<<<<< HEAD\n  b:\n"), text.replace("schema", "sch: ema", 1)):
        (project / "dvc.lock").write_text(broken)
        with pytest.raises(ProjectError, match=r"dvc\.lock: not valid YAML"):
            state(project)
        assert (project / "dvc.lock").read_text() == broken


def test_stages_that_are_no_mapping_are_said(project: Path) -> None:
    (project / "dvc.lock").write_text("schema: '2.0'\nstages: [a, b]\n")
    with pytest.raises(ProjectError, match=r"dvc\.lock: stages: a mapping of stages is expected, not list; .*git checkout dvc.lock"):
        read_lock(project)


KILLED = """
import os, sys
from dvc.utils.serialize import _common
plain = _common._dump_data
def cut(path, data, dumper, fs=None, **more):
    plain(path, data, dumper, fs=fs, **more)
    if os.fspath(path).endswith("dvc.lock"):
        os.truncate(path, {size})
        os.kill(os.getpid(), 9)
_common._dump_data = cut
from dvc.cli import main
main(["repro", "--force", "-s", "d"])
"""


@pytest.mark.parametrize("size", [0, 1000])
def test_a_killed_dvc_costs_nothing_but_a_restore(project: Path, size: int, server: str) -> None:
    interrupted.journal_start(project, "d")
    killed = subprocess.run([sys.executable, "-c", KILLED.format(size=size)], cwd=project, env=dvc_toy.environment(), capture_output=True)
    assert killed.returncode == -9 and (project / "dvc.lock").stat().st_size == size
    for command in (["status"], ["plan"]):
        said = dvc_toy.gr2(project, *command)
        assert ("a DVC was killed while it wrote it; mended" in said.stderr) == (command == ["status"])
    assert (project / NOTES / "d").exists() and list(read_lock(project)) == list("abcd")
    assert set(dvc_toy.states(dvc_toy.gr2(project, "run", PREFECT_API_URL=server)).values()) == {"Cached"}
    assert not list((project / NOTES).iterdir())


def test_a_committed_file_without_stages_is_read_as_it_is(project: Path) -> None:
    """It looks cut, and cannot be mended: nobody waits for the lock that this very process holds."""
    (project / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    dvc_toy.commit(project, "no stages")
    interrupted.journal_start(project, "a")
    assert read_lock(project) == {}
    with repo.open_repo(project):
        assert read_lock(project) == {}
