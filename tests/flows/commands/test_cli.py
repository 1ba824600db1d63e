"""The command line around the flow: what it prints, its exit codes, its errors."""

import json
import sys
from pathlib import Path

import pytest

from flows.cli import COMMANDS, main
from tests.support import dvc_toy


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = dvc_toy.make(tmp_path_factory.mktemp("cli") / "toy")
    (root / "infra/profiles").mkdir(parents=True)
    (root / "infra/profiles/default.yaml").write_text(dvc_toy.PARAMS)
    (root / "infra/profiles/big.yaml").write_text("b: {x: 50}\n")
    (root / "infra/profiles/small.yaml").write_text("a: {x: 3}\nb: {x: 2}\n")
    dvc_toy.dvc(root, "repro")
    dvc_toy.commit(root, "ran")
    return root


def test_plan_status_lineage_profiles(project: Path) -> None:
    assert "Nothing to run" in dvc_toy.gr2(project, "plan").stdout
    with (project / "stages/b/words.py").open("a") as file:
        file.write("# why\n")
    made = json.loads(dvc_toy.gr2(project / "stages", "plan", "--json").stdout)  # from a folder below the root
    b = next(stage for stage in made["stages"] if stage["name"] == "b")
    assert (b["action"], b["causes"][0]["kind"], b["causes"][0]["path"]) == ("run", "code", "stages/b/words.py")
    assert "code stages/b/words.py modified" in dvc_toy.gr2(project, "plan").stdout
    assert "changed" in dvc_toy.gr2(project, "status").stdout
    dvc_toy.call(project, "git", "checkout", "-q", "stages")
    tree = dvc_toy.gr2(project / "data/d", "lineage", "out.txt").stdout
    assert "sha256 0000" in tree and "$ python -m stages.a" in tree
    assert json.loads(dvc_toy.gr2(project, "lineage", "data/d/out.txt", "--json").stdout)["raw"]["rows"] == 1
    assert dvc_toy.gr2(project, "profiles").stdout.splitlines() == ["default (params.yaml holds it)", "big", "small"]
    planned = json.loads(dvc_toy.gr2(project, "plan", "--json", "--profile", "small", "--profile", "big").stdout)
    causes = {stage["name"]: [cause["detail"] for cause in stage["causes"] if cause["kind"] == "param"] for stage in planned["stages"]}
    assert (causes["a"], causes["b"]) == (["1 -> 3"], ["1 -> 50"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "aa"], "gr2: unknown stage 'aa'; did you mean 'a'?"),
        (["run", "--profile", "bug"], "did you mean 'big'"),
        (["plan", "--profile", "big", "--profile", "bug"], "did you mean 'big'"),
        (["plan", "--profile", "big", "--set", "b.nothing=3"], "--set b.nothing: params.yaml has no such key"),
        (["run", "--discard-edits"], "--discard-edits needs --profile"),
        (["plan", "zzz"], "unknown stage 'zzz' (stages: a, "),
        (["lineage", "data/d/nothing.txt"], "no stage makes it; did you mean"),
    ],
)
def test_wrong_requests(project: Path, words: list[str], message: str) -> None:
    result = dvc_toy.gr2(project, *words, ok=False)
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr


def test_wrong_projects(project: Path, tmp_path: Path) -> None:
    result = dvc_toy.gr2(tmp_path, "plan", ok=False)
    assert result.returncode == 2 and "run at the root of the project" in result.stderr
    params = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text("a: {x: 1")
    result = dvc_toy.gr2(project, "plan", ok=False)
    assert result.returncode == 2 and "params.yaml" in result.stderr and "Traceback" not in result.stderr
    (project / "params.yaml").write_text(params.replace("x: 1", "x: 77"))
    result = dvc_toy.gr2(project, "run", "--profile", "big", ok=False)
    assert result.returncode == 2 and "edits that the profile big would overwrite: a.x" in result.stderr
    (project / "params.yaml").write_text(params)


def test_profile_and_ephemeral_server(project: Path, server: str) -> None:
    result = dvc_toy.gr2(project, "run", "--profile", "big", "b")
    assert "b.x: 1 -> 50" in result.stdout
    assert dvc_toy.states(result) == {"a": "Cached", "b": "Completed"}
    assert (project / ".gr2/prefect/prefect.db").exists()
    assert "prefect" not in (result.stdout + result.stderr).lower()
    assert (project / "data/b/out.txt").read_text() == "a1\nb50\n"
    result = dvc_toy.gr2(project, "run", "--profile", "small", "--profile", "big", "b", PREFECT_API_URL=server)
    assert "profile small + big: 1 changed in params.yaml" in result.stdout
    assert (project / "data/b/out.txt").read_text() == "a3\nb50\n"
    assert "params.yaml holds small + big" in dvc_toy.gr2(project, "profiles").stdout
    dvc_toy.gr2(project, "run", "--profile", "big", "b", PREFECT_API_URL=server)


def test_deps(project: Path) -> None:
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(text.replace(", stages/__init__.py", ""))
    assert "lists what every stage imports" in dvc_toy.gr2(project, "deps").stdout
    (project / "stages/helpers").mkdir()
    (project / "stages/helpers/__init__.py").write_text("ONE = 1\n")
    with (project / "stages/c/words.py").open("a") as file:
        file.write("import stages.helpers\n")
    result = dvc_toy.gr2(project, "deps", ok=False)
    assert result.returncode == 2 and "c imports stages.helpers, dvc.yaml does not list it" in result.stdout
    planned = dvc_toy.gr2(project, "plan", ok=False)
    assert planned.returncode == 2 and "stages.c.deps: stages.helpers is imported and not listed" in planned.stderr
    refused = dvc_toy.gr2(project, "deps", "--write", ok=False)
    assert refused.returncode == 2 and "edited by hand" in refused.stderr
    (project / "dvc.yaml").write_text(text.replace(", stages/__init__.py", "").replace("[stages/c,", "[stages/c, stages/helpers,"))
    dvc_toy.gr2(project, "deps")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_module_and_explains_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: gr2 {name}" in capsys.readouterr().out


def test_help_imports_no_command(tmp_path: Path) -> None:
    listing = "import sys; from flows.cli import main\ntry: main(['--help'])\nfinally: print(*sys.modules, file=sys.stderr)"
    modules = dvc_toy.call(tmp_path, sys.executable, "-c", listing, PYTHONPATH=str(dvc_toy.ROOT)).stderr.split()
    assert [name for name in modules if name.startswith("flows.")] == ["flows.commands", "flows.cli"]
    assert not {"dvc", "prefect", "rich", "polars"} & set(modules)
