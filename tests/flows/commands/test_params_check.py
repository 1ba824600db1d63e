"""gr2 run and gr2 plan refuse parameters before anything is written or started. The toy has a small tool in place of the real one."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from flows.cli import main
from flows.pipeline import params_check
from tests.support import dvc_toy

Said = Callable[..., tuple[int, str]]
TOOL = """
import pathlib, sys
pathlib.Path("asked").write_text("x" * (1 + len(pathlib.Path("asked").read_text()) if pathlib.Path("asked").exists() else 1))
texts = [pathlib.Path(file).read_text() for file in sys.argv[1:]]
if any("x: 13" in text for text in texts):
    print("params.yaml: d.x: 13 is unlucky\\nparams.yaml: d.y: and another")
    sys.exit(1)
sys.exit("a bug of the tool" if any("x: 14" in text for text in texts) else 0)
"""
BOMB = "a: &a [1, 1]\n" + "".join(f"{name}: &{name} [*{before}, *{before}]\n" for before, name in pairwise("abcdefghijklmnopqrstuvwxyz"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = dvc_toy.make(tmp_path_factory.mktemp("params") / "toy")
    (root / "stages/tools").mkdir()
    (root / "stages/tools/check_params.py").write_text(TOOL)
    (root / ".gitignore").write_text((root / ".gitignore").read_text() + "/asked\n")
    dvc_toy.commit(root, "a tool")
    return root


@pytest.fixture
def said(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """The command line in this process: (its exit code, what it printed). Nothing may have been written afterwards."""

    def call(*words: str, params: str = dvc_toy.PARAMS) -> tuple[int, str]:
        monkeypatch.chdir(project)
        (project / "params.yaml").write_text(params)
        code = main(list(words))
        captured = capsys.readouterr()
        assert (project / "params.yaml").read_text() == params and not (project / "data").exists()
        return code, captured.out + captured.err

    return call


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("dd: {x: 1}\n", "params.yaml: dd: no stage has such a section; did you mean 'd'? (sections: a, b, c, d, resources;"),
        ("resources: {aa: {cpus: 2}}\n", "params.yaml: resources.aa: there is no such stage; did you mean 'a'?"),
        ("resources: {a: [1]}\n", "params.yaml: resources.a: a mapping of cpus, gpus, memory_gb is expected (got [1])"),
        ("resources: {a: {cpu: 2}}\n", "params.yaml: resources.a: unknown key 'cpu'; did you mean 'cpus'?"),
        ("resources: [1]\n", "params.yaml: resources: a mapping of keys is expected (got [1], a list)"),
        ("resources:\n", "params.yaml: resources: a mapping of keys is expected (got nothing)"),
    ],
)
def test_sections_and_resources(said: Said, command: str, more: str, message: str) -> None:
    code, text = said(command, params=dvc_toy.PARAMS + more)
    assert code == 2 and message in text


@pytest.mark.parametrize("value", ["", " []", " 3"])
def test_a_section_that_is_no_mapping(said: Said, value: str) -> None:
    code, text = said("run", params=dvc_toy.PARAMS.replace("c:\n  x: 1\n", f"c:{value}\n"))
    assert code == 2 and "params.yaml: c: a mapping of keys is expected (got" in text


def test_all_faults_of_sections_are_told_at_once(said: Said) -> None:
    code, text = said("run", params=dvc_toy.PARAMS + "dd: {}\nee: {}\n")
    assert code == 2 and "params.yaml: dd:" in text and "params.yaml: ee:" in text


@pytest.mark.parametrize("words", [("run",), ("plan",), ("run", "--set", "d.x=2")])
def test_a_bomb_of_aliases_is_refused_at_once(said: Said, words: tuple[str, ...]) -> None:
    code, text = said(*words, params=dvc_toy.PARAMS + BOMB.replace("a:", "zz:", 1))
    assert code == 2 and "params.yaml: its aliases (*name) stand for more than 100,000 values" in text


@pytest.mark.parametrize("words", [("run",), ("run", "--dry"), ("run", "--queue")])
def test_what_the_stages_would_refuse_is_refused_before_a_value_is_set(said: Said, words: tuple[str, ...]) -> None:
    code, text = said(*words, "--set", "d.x=13")
    assert code == 2 and "params.yaml: d.x: 13 is unlucky" in text and "params.yaml: d.y: and another" in text
    code, text = said(*words, "--set", "d.x=14")
    assert code == 2 and "params.yaml could not be checked: a bug of the tool" in text


def test_the_tool_is_asked_once_about_the_same_parameters(said: Said, project: Path) -> None:
    (project / "asked").unlink(missing_ok=True)
    for x in (1, 1, 2, 2, 1):
        assert said("run", "--dry", "--set", f"d.x={x}")[0] == 0
    assert (project / "asked").read_text() == "xxx"
    assert (project / params_check.CHECKED).is_file()
