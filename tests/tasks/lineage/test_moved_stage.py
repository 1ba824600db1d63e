"""Lineage across a renamed stage, whose code deps were single files once: git history and the record still lead to the raw file."""

from pathlib import Path

import pytest

from tasks.dvc.lockfile import as_dvc_writes, read_lock
from tasks.lineage.index import Index
from tasks.lineage.query import LineageChain, chain
from tasks.project.graph import read_graph
from tests.support import dvc_toy, lineage_toy


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tag v1: b with a dep for each file of its code. Now it is e, its outputs are in data/e, and its code is one dep."""
    root = dvc_toy.make(tmp_path_factory.mktemp("moved") / "toy")
    packages = (root / "dvc.yaml").read_text()
    files = ", ".join(f"stages/b/{name}" for name in ("__init__.py", "__main__.py", "words.py"))
    (root / "dvc.yaml").write_text(packages.replace("deps: [stages/b,", f"deps: [{files},"))
    lineage_toy.run(root)
    dvc_toy.commit(root, "first")
    dvc_toy.call(root, "git", "tag", "v1")
    (root / "stages/b").rename(root / "stages/e")
    (root / "stages/e/words.py").write_text('WORDS = "e"\n')  # else both would make the same bytes
    for path in (root / "dvc.yaml", root / "params.yaml", *(root / "stages").glob("*/__main__.py")):
        text = packages if path.name == "dvc.yaml" else path.read_text()
        for old, new in (("stages/b", "stages/e"), ("stages.b", "stages.e"), ("data/b", "data/e"), ("  b:", "  e:"), ("[b]", "[e]")):
            text = text.replace(old, new)
        text = text.replace('"b"', '"e"').replace("stages/b", "stages/e").replace("spans/b", "spans/e").replace("\nb:", "\ne:")
        path.write_text(text)
    lineage_toy.run(root, "aecd")
    dvc_toy.commit(root, "b is e now")
    return root


def ask(root: Path, question: str) -> LineageChain:
    return chain(root, read_graph(root), question, index=Index(root))


@pytest.mark.parametrize("question", ["v1:data/d/model", "data/d/model"])
def test_every_model_leads_to_the_raw_file(moved: Path, question: str) -> None:
    answer = ask(moved, question)
    middle = "b" if question.startswith("v1") else "e"
    assert {stage.name for stage in answer.stages} == {"a", middle, "c", "d"}
    assert answer.raw is not None and answer.raw["name"] == "raw.txt"
    code = next(stage.code for stage in answer.stages if stage.name == middle)
    assert sorted(code)[-1] == ("stages/b/words.py" if middle == "b" else "stages/e")


def test_an_old_output_is_known_by_its_hash_and_the_record_alone(moved: Path, tmp_path: Path) -> None:
    """The old dvc.lock is in no branch of a checkout whose history was cut: the events still know the run."""
    old = ask(moved, "v1:data/b/model").hash
    assert ask(moved, old).stage == "b"
    root = dvc_toy.copy(moved, tmp_path / "toy")
    stages = read_lock(root)
    del stages["b"]  # DVC leaves the entry of a stage that is gone
    (root / "dvc.lock").write_text(as_dvc_writes(stages))
    dvc_toy.call(root, "git", "tag", "-d", "v1")
    dvc_toy.call(root, "git", "checkout", "-q", "--orphan", "cut")
    dvc_toy.commit(root, "all there is")
    dvc_toy.call(root, "git", "branch", "-q", "-D", "main")
    answer = ask(root, old)
    assert [stage.name for stage in answer.stages] == ["b", "a"] and answer.raw is not None
