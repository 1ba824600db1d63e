"""Any way of naming a thing leads to the same chain; who used a data set; what differs between two checkpoints."""

import hashlib
import shutil
import sys
from pathlib import Path

import pytest

from tasks.lineage.diff import Difference, compare
from tasks.lineage.index import Index
from tasks.lineage.query import LineageChain, chain, retrain, users
from tasks.lineage.resolve import find
from tasks.project.graph import read_graph
from tasks.system.errors import ProjectError
from tests.support import dvc_toy, lineage_toy


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lineage_toy.copy(tmp_path_factory, "find")


@pytest.fixture(scope="module")
def index(project: Path) -> Index:
    return Index(project)


def ask(index: Index, asked: str) -> LineageChain:
    return chain(index.root, read_graph(index.root), asked, index=index)


def facts(found: LineageChain) -> list[tuple[str, dict[str, object]]]:
    return [(link.name, link.params) for link in found.stages]


def test_path_hash_and_copy_lead_to_one_chain(project: Path, index: Index, tmp_path: Path) -> None:
    by_path = ask(index, "data/d/model")
    assert [name for name, _ in facts(by_path)] in (["d", "c", "b", "a"], ["d", "b", "c", "a"])
    assert dict(facts(by_path))["b"] == {"b": {"x": 5, "deep": {"y": 2}}} and by_path.raw and by_path.raw["rows"] == 1
    md5 = lineage_toy.md5(project, "data/d/model")
    for asked in (md5, md5.removesuffix(".dir"), md5[:8]):
        assert facts(ask(index, asked)) == facts(by_path)
    shutil.copytree(project / "data/d/model", tmp_path / "elsewhere")
    copy = ask(index, str(tmp_path / "elsewhere"))
    assert (copy.kind, copy.hash, copy.note) == ("copy", md5, "all 1 files match") and facts(copy) == facts(by_path)
    (tmp_path / "elsewhere/README.md").write_text("mine")
    copy = ask(index, str(tmp_path / "elsewhere"))
    assert copy.note == "1 of 1 files match; not part of it: README.md" and facts(copy) == facts(by_path)
    (tmp_path / "elsewhere/weights.bin").write_text("other weights")
    with pytest.raises(ProjectError, match="no output has these weights"):
        ask(index, str(tmp_path / "elsewhere"))


def test_a_member_by_its_hash(project: Path, index: Index) -> None:
    """weights.bin holds the same bytes as out.txt, which is itself an output and goes first."""
    content = (project / "data/c/model/weights.bin").read_bytes()
    found = ask(index, hashlib.md5(content).hexdigest()[:12])
    assert (found.path, found.stage) == ("data/c/out.txt", "c")


def test_an_old_version_by_hash_tag_and_copy(project: Path, index: Index, tmp_path: Path) -> None:
    """Not in the workspace any more: its chain has the parameters and code of then."""
    old = ask(index, "v1:data/d/model")
    assert dict(facts(old))["b"]["b"]["x"] == 1  # type: ignore[index]
    assert facts(ask(index, old.hash)) == facts(old)
    dvc_toy.call(project, sys.executable, "-m", "dvc", "get", ".", "data/d/model", "--rev", "v1", "-o", str(tmp_path / "old"), "-q")
    assert facts(ask(index, str(tmp_path / "old"))) == facts(old)
    whole = ask(index, "v1")
    assert {link.name for link in whole.stages} == set("abcd") and whole.kind == "revision" and whole.raw
    assert "tag v1" in whole.stages[0].refs


def test_found_when_the_cache_is_gone(project: Path, tmp_path: Path) -> None:
    """The listing of a model's files is in the record."""
    clone = tmp_path / "clone"
    shutil.copytree(project, clone, symlinks=True)
    old = lineage_toy.cached(clone, ask(Index(project), "v1:data/d/model").hash)
    assert old.exists()
    shutil.rmtree(clone / ".dvc/cache")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/weights.bin").write_text("a1\nb1\na1\nc1\nd1\n")
    (tmp_path / "copy/notes").write_text("x")
    found = ask(Index(clone), str(tmp_path / "copy"))
    assert found.output == "data/d/model" and dict(facts(found))["b"]["b"]["x"] == 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("data/d/out.txd", r"no stage makes it; did you mean 'data/d/out\.txt'"),
        ("0123456789", "no stage makes it"),
        ("v1:data/e", "records no such output"),
        ("HEAD~9", "no stage makes it"),
        ("-x", "no stage makes it"),
    ],
)
def test_what_cannot_be_found(index: Index, asked: str, message: str) -> None:
    with pytest.raises(ProjectError, match=message):
        ask(index, asked)


def test_a_folder_of_several_outputs_names_them(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where what lies in it is like no output, so that it cannot stand for one."""
    root = lineage_toy.copy(tmp_path_factory, "folder")
    held = read_graph(root).outs_of_dep("data/a")
    for file in (root / "data/a").rglob("*"):
        if file.is_file():
            file.write_text("like nothing else")
    with pytest.raises(ProjectError, match=f"data/a: a folder of several outputs; ask about one of them: {', '.join(held)}"):
        ask(Index(root), "data/a")
    assert held and ask(Index(root), held[0]).stage == "a"


def test_a_revision_before_the_first_run(index: Index) -> None:
    with pytest.raises(ProjectError, match=r"has no dvc\.lock"):
        ask(index, "v1~1")


def test_who_used_a_raw_file(project: Path, index: Index) -> None:
    """Every model of both runs, by the raw file's name, its sha256 or the beginning of it."""
    expected = {
        (path, out["hash"])
        for version in index.versions
        for path, out in version.outputs.items()
        if path.endswith("model")  # all lead back to the one raw file
    }
    assert len(expected) == 1 + 2 + 2 + 2
    for asked in ("raw.txt", "0" * 64, "0" * 10):
        models = retrain(users(index, find(index, read_graph(project), asked, project)))
        assert {(use.path, use.hash) for use in models} == expected
    current = [use.path for use in models if "workspace" in use.refs]
    assert sorted(current) == [f"data/{name}/model" for name in "abcd"]
    assert [use.refs for use in models if use.path == "data/b/model" and "workspace" not in use.refs] == [("tag v1",)]


def test_who_used_an_intermediate_data_set(project: Path, index: Index) -> None:
    """b's old output went into the old d alone, its new one into the new d alone."""
    for revision, x in (("v1", "1"), ("main", "5")):
        md5 = ask(index, f"{revision}:data/b/out.txt").hash
        models = retrain(users(index, find(index, read_graph(project), md5, project)))
        assert [use.path for use in models] == ["data/d/model"]
        assert f"b{x}\n" in lineage_toy.cached(project, index.listing(models[0].hash)["weights.bin"]).read_text()


def diff(index: Index, a: str, b: str) -> list[Difference]:
    return compare(index, read_graph(index.root), a, b, index.root)


def test_what_differs_and_only_that(project: Path, index: Index) -> None:
    rows = diff(index, "v1:data/d/model", "data/d/model")
    told = [(row.stage, row.kind, row.key, row.a, row.b) for row in rows if row.kind != "data"]
    old, new = (hashlib.md5(f'WORDS = "{word}"\n'.encode()).hexdigest() for word in "cC")
    assert sorted(told, key=str) == [("b", "param", "b.x", 1, 5), ("c", "code", "stages/c/words.py", old, new)]
    assert {(row.stage, row.key, row.why) for row in rows if row.kind == "data"} == {
        ("d", "data/b/out.txt", "from b, which differs"),
        ("d", "data/c/out.txt", "from c, which differs"),
    }
    assert diff(index, "data/d/model", lineage_toy.md5(project, "data/d/model")) == []
    assert diff(index, "v1:data/a/model", "data/a/model") == []
    assert {row.stage for row in diff(index, "v1:data/b/model", "data/b/model")} == {"b"}


def test_another_environment_is_a_difference(project: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(project, clone, symlinks=True)
    (clone / "requirements.lock").write_text("polars==2.2\n")
    dvc_toy.set_param(clone, "d:\n  x: 1", "d:\n  x: 2")
    lineage_toy.run(clone, "d")
    rows = diff(Index(clone), "main:data/d/model", "data/d/model")
    old, new = (hashlib.sha256(f"polars=={version}\n".encode()).hexdigest() for version in ("2.1", "2.2"))
    assert {(row.kind, row.key, row.a, row.b) for row in rows} == {
        ("param", "d.x", 1, 2),
        ("environment", "locks.requirements.lock", old, new),
    }


def test_a_hash_that_fits_two_things(index: Index) -> None:
    """Sixteen hashes cannot be told apart by too few digits: six are asked for, and then it is said which there are."""
    hashes = sorted({out["hash"].removesuffix(".dir") for version in index.versions for out in version.outputs.values()})
    twins = [(a, b) for a, b in zip(hashes, hashes[1:], strict=False) if a[:6] == b[:6]]
    assert not twins  # the fixture's own hashes are apart, so the ambiguity is made:
    version = next(version for version in index.versions if version.stage == "a")
    other = {**version.outputs, "data/a/twin.txt": {"hash": hashes[0][:31] + ("0" if hashes[0][31] != "0" else "1"), "size": 1}}
    twin = Index(index.root)
    next(version for version in twin.versions if version.stage == "a").outputs = other
    with pytest.raises(ProjectError, match="more than one hash begins like that"):
        chain(twin.root, read_graph(twin.root), hashes[0][:10], index=twin)
