"""Only what changed, and only what was asked for: `gr2 run` and `gr2 plan` with --from, --until, --force, --set and --dry."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.cli import main
from tests.support import dvc_toy

Said = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = dvc_toy.make(tmp_path_factory.mktemp("selection") / "toy")
    dvc_toy.dvc(root, "repro")
    dvc_toy.commit(root, "ran")
    return root


@pytest.fixture
def project(ran: Path, tmp_path: Path) -> Path:
    return dvc_toy.copy(ran, tmp_path / "toy")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """The command line in this process, in a project: (its exit code, what it printed)."""

    def call(root: Path, *words: str) -> tuple[int, str]:
        monkeypatch.chdir(root)
        code = main(list(words))
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


def planned(said: Said, root: Path, *words: str) -> dict[str, set[str]]:
    """stage -> its causes as kind:path:key, of the stages that would run."""
    stages = json.loads(said(root, "plan", "--json", *words)[1])["stages"]
    return {own["name"]: {f"{why['kind']}:{why['path']}:{why['key']}" for why in own["causes"]} for own in stages if own["action"] == "run"}


def dry(said: Said, root: Path, *words: str) -> dict[str, str]:
    rows = said(root, "run", "--dry", *words)[1].splitlines()[1:-1]
    return {row.split()[0]: row.split()[1] for row in rows if not row.startswith(" ")}


def test_causes_name_file_key_and_module(project: Path, said: Said) -> None:
    with (project / "stages/b/words.py").open("a") as file:
        file.write("# another word\n")
    dvc_toy.set_param(project, "c:\n  x: 1", "c:\n  x: 2")
    assert planned(said, project) == {
        "b": {"code:stages/b/words.py:"},
        "c": {"param:params.yaml:c.x"},
        "d": {"upstream::b", "upstream::c"},
    }
    _, text = said(project, "plan")
    assert "code stages/b/words.py modified" in text and "c.x: 1 -> 2" in text


def test_code_that_changes_and_outputs_that_do_not_stop_the_wave(project: Path, said: Said, server: str) -> None:
    with (project / "stages/a/words.py").open("a") as file:
        file.write("# the same words\n")
    assert set(planned(said, project)) == {"a", "b", "c", "d"}
    result = dvc_toy.gr2(project, "run", PREFECT_API_URL=server)
    assert dvc_toy.states(result) == {"a": "Completed", "b": "Cached", "c": "Cached", "d": "Cached"}
    assert planned(said, project) == {}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--from", "c"], {"c": "cached", "d": "cached"}),
        (["--until", "b"], {"a": "cached", "b": "cached"}),
        (["--from", "b", "--until", "b"], {"b": "cached"}),
        (["b", "--until", "c"], {"a": "cached", "b": "cached", "c": "cached"}),
        (["--from", "b", "--force", "d"], {"b": "cached", "d": "run"}),
        (["--force", "b", "--force", "c"], {"a": "cached", "b": "run", "c": "run", "d": "run"}),
        (["--set", "c.x=5"], {"a": "cached", "b": "cached", "c": "run", "d": "run"}),
        (["--set", "c.x=5", "--until", "b"], {"a": "cached", "b": "cached"}),
    ],
)
def test_dry_run_and_plan_say_the_same_and_touch_nothing(project: Path, said: Said, words: list[str], expected: dict[str, str]) -> None:
    before = (project / "params.yaml").read_bytes(), (project / "dvc.lock").read_bytes()
    assert dry(said, project, *words) == expected
    assert planned(said, project, *words).keys() == {name for name, action in expected.items() if action == "run"}
    assert ((project / "params.yaml").read_bytes(), (project / "dvc.lock").read_bytes()) == before
    assert dvc_toy.call(project, "git", "status", "--porcelain").stdout == ""


def test_from_set_and_force_run_just_that(project: Path, said: Said, server: str) -> None:
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("c:\n", "c:  # the third\n"))
    result = dvc_toy.gr2(project, "run", "--from", "c", "--force", "c", "--set", "d.x=4", PREFECT_API_URL=server)
    assert "d.x: 1 -> 4" in result.stdout
    assert dvc_toy.states(result) == {"c": "Completed", "d": "Completed"}
    assert (project / "params.yaml").read_text() == text.replace("c:\n", "c:  # the third\n").replace("d:\n  x: 1", "d:\n  x: 4")
    back = dry(said, project, "--set", "d.x=1")
    assert back == {"a": "cached", "b": "cached", "c": "cached", "d": "run"}
    assert set(dry(said, project).values()) == {"cached"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--from", "dd"], "unknown stage 'dd'; did you mean 'd'?"),
        (["run", "--from", "d", "--until", "b"], "'d' is not among what they need"),
        (["plan", "--until", "b", "--force", "d"], "--force d: this run does not come to it (stages: a, b)"),
        (["run", "--set", "b.deep.z=1"], "--set b.deep.z: params.yaml has no such key; did you mean 'b.deep.y'?"),
        (["run", "--set", "b.deep=1"], "it is a section; name a key in it (b.deep.y)"),
        (["run", "--set", "b.x=word"], "a whole number is expected"),
        (["run", "--set", "b.x=true"], "a whole number is expected"),
        (["run", "--set", "b.x=1.5"], "a whole number is expected"),
        (["run", "--set", "b.x"], "KEY=VALUE is expected"),
        (["run", "--set", "b.x=[1"], "not valid YAML"),
        (["run", "--set", "b.x=1", "--set", "b.x=2"], "--queue runs them all side by side"),
        (["run", "--jobs", "2"], "--jobs and --no-start go with --queue"),
        (["run", "--queue", "--force", "a"], "--queue takes stages, --until and --set"),
        (["run", "--queue", "--set", "a.x=2", "--jobs", "0"], "--jobs 0: one or more"),
        (["run", "--queue"], "nothing is queued"),
        (["run", "--control", "x", "--set", "a.x=2"], "--control runs every stage"),
    ],
)
def test_wrong_requests_change_nothing(ran: Path, said: Said, words: list[str], message: str) -> None:
    code, text = said(ran, *words)
    assert code == 2 and message in text
    assert dvc_toy.call(ran, "git", "status", "--porcelain").stdout == ""


def test_a_first_stage_needs_what_lies_before_it(tmp_path: Path, said: Said) -> None:
    root = dvc_toy.make(tmp_path / "toy")
    code, text = said(root, "run", "--from", "d")
    assert code == 2 and "b, c, which it needs, has never run; run: gr2 run b c" in text


def test_a_value_that_dvc_yaml_is_written_with_is_foreseen(project: Path, said: Said) -> None:
    """The command of d and one of its deps are values of params.yaml: with others, it runs, and what it read before is no cause."""
    (project / "params.yaml").write_text(dvc_toy.PARAMS + "  word: quietly\n  reads: data/a/out.txt\n")
    text = (project / "dvc.yaml").read_text().replace("data/c/out.txt]", 'data/c/out.txt, "${d.reads}"]')
    (project / "dvc.yaml").write_text(text.replace("cmd: python -m stages.d", "cmd: python -m stages.d ${d.word}"))
    dvc_toy.dvc(project, "repro")
    assert dry(said, project, "--set", "c.x=3")["c"] == "run"
    (project / "more.txt").write_text("more")
    for key, value, message in [
        ("d.word", "loudly", "command changed: python -m stages.d quietly"),
        ("d.reads", "more.txt", "more.txt is new"),
    ]:
        code, text = said(project, "run", "--dry", "--set", f"{key}={value}")
        assert code == 0 and message in text and "1 of 4 stages would run" in text
