"""What would run and why, on a real DVC project: each kind of change is named, and nothing is run."""

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.project.graph import read_graph
from tasks.run.plan import Plan, make_plan
from tasks.run.status import project_status
from tests.support import dvc_toy


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


def test_missing_code_changed_command_and_new_dep(project: Path) -> None:
    (project / "stages/b/words.py").unlink()
    text = (project / "dvc.yaml").read_text().replace("cmd: python -m stages.c", "cmd: python -u -m stages.c")
    (project / "dvc.yaml").write_text(text.replace("stages/d/words.py", "stages/d/words.py, stages/c/words.py"))
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


def test_a_stage_at_work_is_said_to_be(project: Path) -> None:
    dvc_toy.set_param(project, "b:\n  x: 1", "b:\n  x: 1\n  sleep: 4")
    child = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "-s", "b"], cwd=project, stdout=subprocess.PIPE, text=True, env=dvc_toy.environment()
    )
    assert child.stdout
    while "hello from b" not in child.stdout.readline():
        pass
    made = plan(project)
    assert [cause.kind for cause in made["b"].causes] == ["running"]
    child.communicate()
    assert running(plan(project)) == []  # what b made equals what it made before


def test_planning_runs_nothing(project: Path) -> None:
    lock = (project / "dvc.lock").read_bytes()
    dvc_toy.set_param(project, "x: 1", "x: 2")
    plan(project)
    assert (project / "dvc.lock").read_bytes() == lock
    assert not (project / ".gr2").exists()
