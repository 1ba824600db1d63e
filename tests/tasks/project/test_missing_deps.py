"""A value of params.yaml that names a dep which does not exist: an error that names the key and what may be there."""

import argparse
import re
from pathlib import Path

import pytest

from flows.commands import run
from tasks.project.graph import read_graph
from tasks.project.missing_deps import check_template_deps
from tasks.system.errors import ProjectError
from tests.support import dvc_toy

DVC_YAML = """
stages:
  fetch: {cmd: fetch, outs: [data/raw]}
  ingest: {cmd: ingest, deps: ["${ingest.folder}"], outs: [data/ingest]}
  train: {cmd: train, deps: [data/ingest, "${train.model}"], outs: [data/train]}
"""
DEFAULT = "ingest: {folder: data/raw}\ntrain: {model: infra/models/scratch}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("scratch", "packaged-minilm"):
        (tmp_path / "infra" / "models" / name).mkdir(parents=True)
    (tmp_path / "infra" / "models" / "README.md").touch()
    (tmp_path / "infra" / "profiles").mkdir()
    (tmp_path / "infra" / "profiles" / "default.yaml").write_text(DEFAULT)
    (tmp_path / "params.yaml").write_text(DEFAULT)
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    return tmp_path


def test_defaults_and_deps_that_a_stage_makes(project: Path) -> None:
    graph = read_graph(project)
    assert graph["train"].dep_keys == {"infra/models/scratch": "train.model"}
    check_template_deps(project, graph, graph.order)


@pytest.mark.parametrize("old", ["scratch", "packaged:scratch"])
def test_an_old_name_of_a_packaged_model(project: Path, old: str) -> None:
    (project / "params.yaml").write_text(DEFAULT.replace("infra/models/scratch", f'"{old}"'))
    message = (
        f"params.yaml: train.model: no such file or folder: {old}; did you mean 'infra/models/scratch'? "
        "(in the project: infra/models/packaged-minilm, infra/models/scratch; the default: infra/models/scratch). CHANGELOG.md"
    )
    graph = read_graph(project)
    with pytest.raises(ProjectError, match="^" + re.escape(message)):
        check_template_deps(project, graph, graph.order)
    check_template_deps(project, graph, graph.closure(["ingest"]))  # the stage with the old value does not run


def test_a_missing_folder_of_raw_files(project: Path) -> None:
    (project / "params.yaml").write_text(DEFAULT.replace("data/raw", "mine"))
    with pytest.raises(ProjectError, match=r"ingest\.folder: no such file or folder: mine; the default is data/raw\. CHANGELOG"):
        check_template_deps(project, read_graph(project), ["ingest"])
    (project / "mine.dvc").touch()
    check_template_deps(project, read_graph(project), ["ingest"])  # dvc pull brings it


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            DEFAULT.replace("data/raw", "''"),
            "params.yaml: ingest.folder: a text or a number is expected (got ''), which dvc.yaml names as a path; "
            "infra/profiles/default.yaml has 'data",
        ),
        (
            DEFAULT.replace("train:", "midtrain:"),
            "params.yaml has no 'train' at its top; did you mean 'midtrain'?; infra/profiles/default.yaml has",
        ),
    ],
)
def test_an_empty_value_and_a_renamed_section(project: Path, params: str, message: str) -> None:
    (project / "params.yaml").write_text(params)
    with pytest.raises(ProjectError, match=re.escape(message) + r".*CHANGELOG\.md"):
        read_graph(project)


def test_model_folders_and_raw_files_are_inputs_of_the_real_stages() -> None:
    """docs/own-data.md and docs/lineage.md say so."""
    none = "student_fit:\n    model: infra/models/none"  # as the teacher is none: one path of two keys, of which one is told
    params = (dvc_toy.ROOT / "params.yaml").read_text()
    graph = read_graph(dvc_toy.ROOT, params.replace(none, none.replace("infra/models/none", "models/student")))
    keys = {key: stage.name for stage in graph.stages.values() for key in stage.dep_keys.values()}
    inputs = {"ingest.folder": "ingest", "embed.model": "embed", "midtrain.model": "midtrain", "midtrain.text": "midtrain"}
    inputs |= {"traces.language_model.model": "traces", "traces.student_fit.model": "traces"}
    assert inputs.items() <= keys.items()


@pytest.mark.slow
@pytest.mark.parametrize("words", [("plan",), ("run",), ("run", "d"), ("run", "--dry")])
def test_from_the_command_line(tmp_path: Path, words: tuple[str, ...]) -> None:
    root = dvc_toy.make(tmp_path / "toy", dvc_toy.PARAMS + "  reads: scratch\n")
    text = (root / "dvc.yaml").read_text().replace("data/c/out.txt]", 'data/c/out.txt, "${d.reads}"]')
    (root / "dvc.yaml").write_text(text)
    result = dvc_toy.gr2(root, *words, ok=False)
    assert result.returncode == 2 and "params.yaml: d.reads: no such file or folder: scratch" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_value_that_the_command_itself_sets_is_not_asked_for_before(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`gr2 run --set` puts an old params.yaml right; the flow looks at the new value."""
    parser = argparse.ArgumentParser()
    run.add_options(parser)
    (project / "params.yaml").write_text(DEFAULT.replace("infra/models/scratch", "scratch"))
    monkeypatch.chdir(project)
    monkeypatch.setattr(run, "_run_pipeline", lambda root, options: 0)
    with pytest.raises(ProjectError, match=r"train\.model: no such file"):
        run.execute(parser.parse_args(["train"]), project)
    assert run.execute(parser.parse_args(["train", "--set", "train.model=infra/models/scratch"]), project) == 0
    check_template_deps(project, read_graph(project), ["train"])
