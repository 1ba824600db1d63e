"""A byte forged anywhere (data, cache, dvc.lock, the record) is found and named; what is only not current is not called forged."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.dvc.lockfile import as_dvc_writes, read_lock
from tasks.ledger.lines import EVENTS, HEAD
from tasks.lineage.outputs import Problem
from tasks.lineage.verify import verify
from tests.support import dvc_toy, lineage_toy


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = lineage_toy.copy(tmp_path_factory, "verify")
    found = verify(root)
    assert found.problems == () and found.notes == ("the record: no remote, or none that answers, vouches for it",), found
    assert found.checked["outputs"] == 12 and found.checked["files"] == 12
    return root


@pytest.fixture
def project(origin: Path, tmp_path: Path) -> Iterator[Path]:
    yield Path(shutil.copytree(origin, tmp_path / "toy", symlinks=True))


@pytest.fixture
def uncommitted(origin: Path, tmp_path: Path) -> Path:
    """The dvc.lock of the second run was not committed: the record alone knows it."""
    root = Path(shutil.copytree(origin, tmp_path / "uncommitted", symlinks=True))
    dvc_toy.call(root, "git", "reset", "-q", "--soft", "HEAD~1")
    assert verify(root).problems == ()
    return root


def forge(place: Path, change: Callable[[bytes], bytes]) -> None:
    place.chmod(0o644)  # DVC's cache is read-only
    place.write_bytes(change(place.read_bytes()))


def flip(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def only(root: Path) -> Problem:
    (problem,) = verify(root).problems
    return problem


def test_any_byte_of_an_output(project: Path) -> None:
    place = project / "data/d/out.txt"
    whole = place.read_bytes()
    stat = place.stat()
    for position in range(len(whole)):
        place.write_bytes(flip(whole, position))
        os.utime(place, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # DVC's own status takes it for unchanged
        assert (only(project).kind, only(project).file) == ("data", "data/d/out.txt")
        place.write_bytes(whole)
    place.unlink()
    assert only(project).file == "data/d/out.txt" and "is missing" in only(project).what


def test_a_file_of_a_folder_is_named(project: Path) -> None:
    weights = project / "data/b/model/weights.bin"
    whole = weights.read_bytes()
    weights.write_bytes(flip(whole, 0))
    assert only(project).file == "data/b/model/weights.bin" and "md5" in only(project).what
    weights.write_bytes(whole)
    (weights.parent / "more.bin").write_bytes(b"")
    assert only(project).file == "data/b/model/more.bin" and "was put in" in only(project).what
    (weights.parent / "more.bin").unlink()
    weights.unlink()
    assert {problem.file for problem in verify(project).problems} == {"data/b/model/weights.bin"}


def test_an_object_of_the_cache(project: Path) -> None:
    for path in ("data/c/out.txt", "data/c/model"):
        place = lineage_toy.cached(project, lineage_toy.md5(project, path))
        whole = place.read_bytes()
        for position in (0, len(whole) // 2, len(whole) - 1):
            forge(place, lambda content, at=position: flip(content, at))  # type: ignore[misc]
            problems = [problem for problem in verify(project).problems if problem.kind == "cache"]
            assert [problem.file for problem in problems] == [str(place.relative_to(project))]
            forge(place, lambda _, whole=whole: whole)  # type: ignore[misc]
        place.rename(place.with_suffix(".away"))
        assert "missing" in only(project).what and only(project).file == str(place.relative_to(project))
        place.with_suffix(".away").rename(place)
    assert verify(project).problems == ()


@pytest.mark.parametrize("committed", [True, False])
def test_any_byte_of_the_lock(committed: bool, request: pytest.FixtureRequest) -> None:
    """A draw over the whole file: hashes, sizes, parameters, paths, commands, spaces, line ends; put in, taken out, changed."""
    root: Path = request.getfixturevalue("project" if committed else "uncommitted")
    place = root / "dvc.lock"
    whole = place.read_bytes()
    draw = random.Random(7)
    for position in draw.sample(range(len(whole)), 10):
        for changed in (flip(whole, position), whole[:position] + whole[position + 1 :], whole[:position] + b" " + whole[position:]):
            place.write_bytes(changed)
            kinds = {problem.kind for problem in verify(root).problems}
            assert kinds - {"record"}, (position, changed[position : position + 20])
    place.write_bytes(whole)


def test_what_differs_in_a_forged_lock_is_said(project: Path, uncommitted: Path) -> None:
    for root in (project, uncommitted):
        place = root / "dvc.lock"
        whole = place.read_text()
        digest = lineage_toy.md5(root, "data/a/out.txt")
        for old, new, said in (
            ("        x: 5\n", "        x: 6\n", "params.params.yaml.b.x: 5 -> 6"),
            ("          y: 2\n", "          y: 3\n", "b.deep.y: 2 -> 3"),
            (f"md5: {digest}", f"md5: {digest[:-1]}{'0' if digest[-1] != '0' else '1'}", f"md5: {digest} -> {digest[:-1]}"),
            ("cmd: python -m stages.c", "cmd: python -m stages.cc", "python -m stages.c -> python -m stages.cc"),
        ):
            assert old in whole
            place.write_text(whole.replace(old, new, 1))
            (problem,) = [problem for problem in verify(root).problems if problem.kind == "lock"]
            assert said in problem.what and "edited, or forged" in problem.what and problem.file == "dvc.lock", problem
        for changed in (
            whole + "\n",
            whole.replace("  b:\n", "  b:  \n", 1),
            whole.replace(": python", ":  python", 1),
            "# note\n" + whole,
        ):
            place.write_text(changed)
            assert "bytes were changed" in only(root).what
        place.write_text(whole)


def test_what_dvc_ran_by_itself_is_not_called_forged(project: Path) -> None:
    dvc_toy.dvc(project, "repro", "--force", "d")
    assert verify(project).problems == (), "equal results are those of the run on record"
    place = project / "stages/c/words.py"
    place.write_text(place.read_text() + "# a note\n")
    dvc_toy.set_param(project, "d:\n  x: 1", "d:\n  x: 7")
    dvc_toy.dvc(project, "repro")
    problems = {problem.what.split(":")[0]: problem for problem in verify(project).problems}
    assert problems.keys() == {"c", "d"}
    for name, problem in problems.items():
        assert "DVC's run cache does: dvc repro or dvc commit wrote it" in problem.what and "forged" not in problem.what
        assert problem.remedy.startswith(f"gr2 run --force {name} runs it on record: the same hashes afterwards confirm its outputs")
    assert "its outputs are those of a run that they know; differs from the likest in deps." in problems["c"].what
    assert "those of a run" not in problems["d"].what and "params.params.yaml.d.x: 1 -> 7" in problems["d"].what
    lock = read_lock(project)
    (project / "dvc.lock").write_text(as_dvc_writes({**lock, "e": lock["d"]}))
    assert next(problem.what for problem in verify(project).problems if "edited, or forged" in problem.what).startswith("e: ")
    (project / "dvc.lock").write_text(as_dvc_writes(lock))
    lineage_toy.run(project, "cd")  # the remedy
    assert verify(project).problems == ()


def test_the_record(project: Path) -> None:
    whole, head = (project / EVENTS).read_bytes(), (project / HEAD).read_bytes()
    lines = whole.splitlines(keepends=True)
    for position in random.Random(8).sample(range(len(whole)), 12):
        (project / EVENTS).write_bytes(flip(whole, position))
        number = whole[:position].count(b"\n") + 1
        found = {problem.file for problem in verify(project).problems if problem.kind == "record"}
        assert found & {f"{EVENTS}:{number}", f"{EVENTS}:{number + 1}", str(EVENTS)}
    for gone in (0, len(lines) // 2, len(lines) - 1):
        (project / EVENTS).write_bytes(b"".join(lines[:gone] + lines[gone + 1 :]))
        assert any(problem.kind == "record" for problem in verify(project).problems)
    (project / EVENTS).write_bytes(whole)
    (project / HEAD).write_bytes(flip(head, 12))
    assert any(problem.kind == "record" for problem in verify(project).problems)
    (project / HEAD).write_bytes(head)
    shutil.rmtree(project / EVENTS.parent)
    assert any("the last ones were removed" in problem.what for problem in verify(project).problems)


def test_plain_dvc_is_named_not_current_is_a_note(project: Path) -> None:
    (project / "stages/b/words.py").write_text('WORDS = "b"  # \n')
    found = verify(project)
    assert found.problems == () and "not current: stages/b/words.py" in found.notes[0] and "(b)" in found.notes[0]
    dvc_toy.dvc(project, "repro", "-s", "b")
    assert (
        "b: neither the record nor a commit has this entry, but DVC's run cache does: dvc repro or dvc commit wrote it"
        in only(project).what
    )
    assert "stages/b/words.py" in only(project).what
    dvc_toy.commit(project, "plain")
    assert verify(project).problems == ()


def test_a_project_from_before_the_chain(project: Path) -> None:
    """Old events knew no hash of the entry: the entry is compared with what they did know."""
    old = []
    for line in (project / EVENTS).read_text().splitlines():
        event = json.loads(line)
        if event["job"]["name"] in "abcd":
            facets = event["run"]["facets"]
            event["run"]["facets"] = {k: v for k, v in facets.items() if k in ("gr2_run", "gr2_params", "gr2_code", "gr2_metrics")}
            old.append(json.dumps(event))
    shutil.rmtree(project / EVENTS.parent)
    (project / EVENTS.parent).mkdir()
    (project / EVENTS).write_text("\n".join(old) + "\n")
    dvc_toy.call(project, "git", "update-ref", "-d", "refs/gr2/lineage")
    dvc_toy.call(project, "git", "reset", "-q", "--soft", "HEAD~1")
    found = verify(project)
    assert found.problems == () and f"{len(old)} events from before there was a chain" in found.notes[0]
    forge(project / "dvc.lock", lambda text: text.replace(b"        x: 5\n", b"        x: 6\n", 1))
    assert "b.x: 5 -> 6" in only(project).what


def test_an_entry_taken_out_of_the_lock(uncommitted: Path) -> None:
    lock = read_lock(uncommitted)
    del lock["d"]
    whole = (uncommitted / "dvc.lock").read_bytes()
    (uncommitted / "dvc.lock").write_text(as_dvc_writes(lock))
    assert "d: has no entry, though the record has a run of it: it was taken out" in only(uncommitted).what
    (uncommitted / "dvc.lock").write_bytes(whole)
    assert verify(uncommitted).problems == ()
