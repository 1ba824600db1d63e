"""What would run and why, on a real DVC project: each kind of change is named, and nothing is run."""

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.project.graph import read_graph
from tasks.run.plan import Plan, make_plan
from tasks.run.status import project_status
from tests.support import dvc_toy, lineage_toy


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = dvc_toy.make(tmp_path_factory.mktemp("plan") / "toy")
    fresh = plan(root)
    assert {stage.action for stage in fresh.stages} == {"run"}
    assert [cause.kind for cause in fresh["d"].causes] == ["new", "upstream", "upstream"]
    assert project_status(root, read_graph(root))[0]["status"] == "never run"
    dvc_toy.dvc(root, "repro")
    return root


@pytest.fixture
def project(ran: Path, tmp_path: Path) -> Path:
    """A copy of the project in which everything is current."""
    return dvc_toy.copy(ran, tmp_path / "toy")


def plan(root: Path) -> Plan:
    return make_plan(root, read_graph(root))


def causes(made: Plan, name: str) -> list[str]:
    return [str(cause) for cause in made[name].causes]


def running(made: Plan) -> list[str]:
    return sorted(stage.name for stage in made.stages if stage.action == "run")


def test_current(project: Path) -> None:
    assert all(stage.current for stage in plan(project).stages)
    assert {row["status"] for row in project_status(project, read_graph(project))} == {"current"}


def test_parameter_is_named_to_the_key(project: Path) -> None:
    dvc_toy.set_param(project, "deep:\n    y: 2", "deep:\n    y: 3\n    z: [1]")
    made = plan(project)
    assert running(made) == ["b", "d"]
    assert causes(made, "b") == ["b.deep.y: 2 -> 3", "b.deep.z: (none) -> [1]"]
    assert causes(made, "d") == ["because b will run"]
    assert made.to_dict()["stages"][1] in (  # b or c stands second
        {"name": "c", "action": "cached", "causes": ()},
        {
            "name": "b",
            "action": "run",
            "causes": (
                {"kind": "param", "path": "params.yaml", "key": "b.deep.y", "detail": "2 -> 3"},
                {"kind": "param", "path": "params.yaml", "key": "b.deep.z", "detail": "(none) -> [1]"},
            ),
        },
    )


def test_comment_in_a_module_is_named(project: Path) -> None:
    with (project / "stages/c/words.py").open("a") as file:
        file.write("# a comment\n")
    made = plan(project)
    assert causes(made, "c") == ["code stages/c/words.py modified"]
    assert running(made) == ["c", "d"]


def test_changed_files_of_a_package_are_named_without_a_record_too(project: Path) -> None:
    """By git; what .dvcignore leaves out is not named."""
    (project / "stages/c/words.py").write_text('WORDS = "C"\n')
    (project / "stages/c/extra.py").touch()
    (project / "stages/c/notes.md").touch()
    assert causes(plan(project), "c") == ["code stages/c/extra.py is new", "code stages/c/words.py modified"]
    (project / "stages/c/__init__.py").unlink()
    dvc_toy.commit(project, "edits")
    assert causes(plan(project), "c") == ["code stages/c modified"], "nothing tells what was there: the last run is not on record"


def test_changed_files_are_named_by_the_record(project: Path) -> None:
    """Of a code package, also when it was edited before the run and committed after it; and of a folder that no stage makes."""
    (project / "raw").mkdir()
    for name in ("one.csv", "two.csv"):
        (project / "raw" / name).write_text(name)
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(text.replace("deps: [stages/a,", "deps: [stages/a, raw,"))
    (project / "stages/a/words.py").write_text('WORDS = "uncommitted"\n')
    lineage_toy.run(project)
    assert all(stage.current for stage in plan(project).stages)
    dvc_toy.commit(project, "as it ran")
    (project / "stages/a/__init__.py").write_text("# a comment\n")
    (project / "stages/a/README.md").touch()
    dvc_toy.commit(project, "an edit")
    (project / "raw/two.csv").write_text("changed")
    (project / "raw/three.csv").touch()
    (project / "raw/one.csv").unlink()
    assert causes(plan(project), "a") == [
        "code stages/a/__init__.py modified",
        "data raw/one.csv is missing",
        "data raw/three.csv is new",
        "data raw/two.csv modified",
    ]


def test_a_changed_folder_outside_the_project_is_named_to_the_file(project: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(text.replace("deps: [stages/a,", f"deps: [stages/a, {model},"))
    lineage_toy.run(project)
    (model / "config.json").write_text("{ }")
    assert causes(plan(project), "a") == [f"data {model}/config.json modified"]


def test_missing_code_changed_command_and_new_dep(project: Path) -> None:
    (project / "stages/b/words.py").unlink()
    text = (project / "dvc.yaml").read_text().replace("cmd: python -m stages.c", "cmd: python -u -m stages.c")
    (project / "dvc.yaml").write_text(text.replace("deps: [stages/d,", "deps: [stages/d, stages/c/words.py,"))
    made = plan(project)
    assert causes(made, "b") == ["code stages/b/words.py is missing"]
    assert causes(made, "c") == ["command changed: python -m stages.c -> python -u -m stages.c"]
    assert causes(made, "d") == ["code stages/c/words.py is new among its deps", "because b will run", "because c will run"]


def test_missing_or_edited_outputs_come_back_from_the_cache(project: Path) -> None:
    (project / "data/a/out.txt").unlink()
    (project / "data/b/out.txt").write_text("edited")
    made = plan(project)
    assert running(made) == []
    assert "out.txt is missing; its recorded version comes back" in causes(made, "a")[0]
    assert "data/b/out.txt modified" in causes(made, "b")[0]
    assert made["d"].current  # its dep differs in the workspace only for now
    subprocess.run(["rm", "-rf", str(project / ".dvc/cache/files")], check=True)
    assert running(plan(project)) == ["a", "b", "c", "d"]


def test_edited_file_of_an_output_folder_is_named(project: Path) -> None:
    (project / "data/b/model/weights.bin").unlink()  # a link into the cache is not written through
    (project / "data/b/model/weights.bin").write_text("edited")
    (project / "data/b/model/more.bin").touch()
    note = "its recorded version comes back from the cache"
    assert causes(plan(project), "b") == [
        f"output data/b/model/more.bin is new; {note}",
        f"output data/b/model/weights.bin modified; {note}",
    ]
    lineage_toy.cached(project, lineage_toy.md5(project, "data/b/model")).unlink()
    assert causes(plan(project), "b") == ["output data/b/model not in cache"] and running(plan(project)) == ["b", "d"]


def test_a_stage_at_work_is_said_to_be(project: Path) -> None:
    dvc_toy.set_param(project, "b:\n  x: 1", "b:\n  x: 1\n  sleep: 0")
    (project / "hold").touch()
    child = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "-s", "b"], cwd=project, stdout=subprocess.PIPE, text=True, env=dvc_toy.environment()
    )
    assert child.stdout
    try:
        while "hello from b" not in child.stdout.readline():
            pass
        made = plan(project)
    finally:
        (project / "hold").unlink()  # whatever happens: the child waits for it
    assert [cause.kind for cause in made["b"].causes] == ["running"]
    child.communicate()
    assert running(plan(project)) == []  # what b made equals what it made before


def test_planning_runs_nothing(project: Path) -> None:
    lock = (project / "dvc.lock").read_bytes()
    dvc_toy.set_param(project, "x: 1", "x: 2")
    plan(project)
    assert (project / "dvc.lock").read_bytes() == lock
    assert not (project / ".gr2").exists()
