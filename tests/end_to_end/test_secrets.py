"""Planted secrets, in the environment and in DVC's local configuration, are found nowhere after runs that succeed and fail."""

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.system.errors import ProjectError
from tasks.system.redaction import refuse_secret_params, secrets, without_secrets
from tests.support import dvc_toy, project_clone

ROOT = dvc_toy.ROOT
PLANTED = {
    "AWS_SECRET_ACCESS_KEY": "wJalr/planted+aws0",
    "HF_TOKEN": "hf_planted_by_a_test",
    "OPENLINEAGE_API_KEY": "ol-planted-8d1f",
    "PREFECT_API_KEY": "pnu_planted_22aa",
    "STORE_PASSWORD": "pässwörd planted",
    "SERVICE_CREDENTIALS": '{\n  "key": "planted-line-two"\n}',
    "DATABASE": "postgresql://gr2:planted-pg-9@localhost/x",
}
REMOTE_PASSWORD = "planted-remote-77"
VALUES = [*PLANTED.values(), '"key": "planted-line-two"', "planted-pg-9", REMOTE_PASSWORD]
TELLTALE = """
import os
for name in {names!r}:
    print(name, os.environ[name])
    print("\\r", os.environ[name], "\\r", end="")
print("fetching https://reader:of-no-variable@example.org/x")
"""


def found_in(root: Path) -> dict[str, list[str]]:
    """Where the planted values stand: in which file below `root` as bytes, and in git's objects; config.local is where one belongs."""
    places = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file() and not path.is_symlink()}
    assert REMOTE_PASSWORD.encode() in places.pop(".dvc/config.local", REMOTE_PASSWORD.encode())
    if (root / ".git").exists():
        batch = ["git", "cat-file", "--batch", "--batch-all-objects"]
        places["git objects"] = subprocess.run(batch, cwd=root, capture_output=True, check=True).stdout
    hits = {name: [value for value in VALUES if value.encode() in content] for name, content in places.items()}
    return {name: values for name, values in hits.items() if values}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy project, whose stage `a` tells what it sees, with a remote on disk and one with a password in its address."""
    folder = tmp_path_factory.mktemp("secrets")
    root = dvc_toy.make(folder / "toy")
    config = (root / ".dvc" / "config").read_text().replace("[core]", "[core]\n    remote = disk")
    remotes = f"['remote \"disk\"']\n    url = {folder / 'remote'}\n['remote \"web\"']\n    url = https://example.org/dvc\n"
    (root / ".dvc" / "config").write_text(config + remotes)
    (root / ".dvc" / "config.local").write_text(f"['remote \"web\"']\n    url = https://gr2:{REMOTE_PASSWORD}@example.org/dvc\n")
    main = root / "stages" / "a" / "__main__.py"
    main.write_text(main.read_text() + TELLTALE.format(names=sorted(PLANTED)))
    dvc_toy.commit(root, "a stage that talks")
    return root


@pytest.mark.slow
def test_nothing_planted_is_written_anywhere(project: Path) -> None:
    outputs = [dvc_toy.gr2(project, "run", **PLANTED)]
    dvc_toy.set_param(project, "a:\n  x: 1", "a:\n  x: 2")
    main = project / "stages" / "a" / "__main__.py"
    main.write_text(main.read_text() + 'sys.exit("a: the store refused " + os.environ["STORE_PASSWORD"])\n')
    failed = dvc_toy.gr2(project, "run", ok=False, **PLANTED)
    assert failed.returncode == 1 and "the store refused <STORE_PASSWORD>" in failed.stderr
    log = (project / ".gr2" / "logs" / "a.log").read_text()
    assert "AWS_SECRET_ACCESS_KEY <AWS_SECRET_ACCESS_KEY>" in log  # it was printed, and by its name
    assert "postgresql://gr2:<DATABASE>@localhost/x" in log and "https://reader:<password>@example.org/x" in log
    outputs += [failed, dvc_toy.gr2(project, "lineage", "data/d/model", **PLANTED)]
    dvc_toy.call(project, sys.executable, "-m", "dvc", "push", "--run-cache", **PLANTED)
    dvc_toy.commit(project, "after")

    assert found_in(project) == {}
    assert found_in(project.parent / "remote") == {} and any((project.parent / "remote").rglob("*"))
    for output in outputs:
        assert not [value for value in VALUES if value in output.stdout + output.stderr]
    assert dvc_toy.call(project, "git", "check-ignore", ".dvc/config.local").stdout.strip()  # where the one that is kept stands

    (project / ".gr2" / "logs" / "b.log").write_text(PLANTED["HF_TOKEN"])  # and such a search does find things
    dvc_toy.call(project, "git", "hash-object", "-w", ".gr2/logs/b.log")
    assert found_in(project) == {".gr2/logs/b.log": [PLANTED["HF_TOKEN"]], "git objects": [PLANTED["HF_TOKEN"]]}


@pytest.mark.slow
def test_the_report_of_a_real_run_holds_none(smoke: project_clone.SmokeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last stages once more, in an environment full of secrets: the same bytes, none of them a secret."""
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    for name in ("evaluate", "report"):
        before = project_clone.contents(smoke.root / "data" / name)
        project_clone.stage(smoke.root, name)
        assert project_clone.contents(smoke.root / "data" / name) == before
    project_clone.gr2(smoke.root, "lineage", "data/report/report.html")
    for folder in ("data", ".gr2", ".dvc"):
        found = found_in(smoke.root / folder)
        assert {
            name: values for name, values in found.items() if not name.endswith(f"/{Path(__file__).name}")
        } == {}  # a control's checkout
    for file in ("dvc.lock", "dvc.yaml", "params.yaml"):
        assert not [value for value in VALUES if value in (smoke.root / file).read_text(encoding="utf-8")]


def test_what_counts_as_a_secret_of_the_environment() -> None:
    env = {**PLANTED, "TOKENIZERS_PARALLELISM": "false", "HOME": "/home/somebody", "PROXY": "http://u:p%40ss-planted@proxy:3128"}
    values = {value for value, _ in secrets(env)}
    assert values >= {*(value for value in VALUES if value not in (PLANTED["SERVICE_CREDENTIALS"], PLANTED["DATABASE"], REMOTE_PASSWORD))}
    assert {"p%40ss-planted", "p@ss-planted"} <= values and not values & {"false", "/home/somebody"}
    known = secrets({"A_TOKEN": "abcdef", "B_TOKEN": "abcdefgh"})
    assert without_secrets("abcdefgh abcdef", known) == "<B_TOKEN> <A_TOKEN>"  # the longer first, so that no rest stays
    assert without_secrets("http://a.example:8080/x@y and ssh://git@host/x", []) == "http://a.example:8080/x@y and ssh://git@host/x"
    assert without_secrets("http://u:pw@h, then http://u:<password>@h", []) == "http://u:<password>@h, then http://u:<password>@h"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("embed: {api_key: abc}", "embed.api_key"),
        ("embed: {hf_token: abc}", "embed.hf_token"),
        ("a: {b: {db_password: x}}", "a.b.db_password"),
        ("a: {dbPassword: x}", "a.dbPassword"),
        ("a: {list: [{token: x}]}", "a.list.0.token"),
        ("a: {secret-access-key: x}", "a.secret-access-key"),
        ("ingest: {folder: 's3://me:pw@host/x'}", "ingest.folder"),
    ],
)
def test_a_secret_in_params_is_refused(tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ProjectError, match="Prefect block") as error:
        refuse_secret_params(tmp_path)
    assert f"{key} (" in str(error.value)
    (tmp_path / "params.yaml").write_text("a: {x: 1}")
    with pytest.raises(ProjectError):
        refuse_secret_params(tmp_path, text)  # as it is about to be


def test_ordinary_params_are_not_refused(tmp_path: Path) -> None:
    ordinary = "max_tokens: 5, eos_token: '</s>', tokenize: x, tokenizer: y, token_weight: z, key: k, forget_salt: s"
    (tmp_path / "params.yaml").write_text(f"a: {{{ordinary}, password: '', api_key: null}}")
    refuse_secret_params(tmp_path)
    refuse_secret_params(tmp_path / "nowhere")
    for profile in (ROOT / "infra" / "profiles").glob("*.yaml"):
        (tmp_path / "params.yaml").write_text(profile.read_text())
        refuse_secret_params(tmp_path)


@pytest.mark.parametrize("words", [("run",), ("plan",)])
def test_no_run_and_no_plan_with_a_secret_in_params(tmp_path: Path, words: tuple[str, ...]) -> None:
    root = dvc_toy.make(tmp_path / "toy", dvc_toy.PARAMS + "e: {api_key: planted-in-params}\n")
    refused = dvc_toy.gr2(root, *words, ok=False)
    assert refused.returncode == 2 and "params.yaml: e.api_key" in refused.stderr and "planted-in-params" not in refused.stderr
    assert not (root / "data").exists() and not (root / "dvc.lock").exists()
