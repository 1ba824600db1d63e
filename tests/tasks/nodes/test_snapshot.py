"""What a snapshot of the code takes along, what it leaves out, and what it refuses."""

import subprocess
from pathlib import Path

import pytest

from tasks.nodes import snapshot
from tasks.nodes.secret_files import never_travels
from tasks.system.errors import ProjectError
from tests.support import dvc_toy

PLANTED = "planted-in-a-file-81"
PEM = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{PLANTED}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a bare repository beside it as its remote `origin`; a secret stands in a commit that was never pushed."""
    root = dvc_toy.make(tmp_path / "home")
    dvc_toy.call(tmp_path, "git", "init", "--quiet", "--bare", "origin.git")
    dvc_toy.call(root, "git", "remote", "add", "origin", str(tmp_path / "origin.git"))
    dvc_toy.call(root, "git", "push", "--quiet", "origin", "HEAD:main")
    (root / ".env").write_text(f"TOKEN={PLANTED}")
    (root / "gone.txt").write_text("removed from git, and still here")
    dvc_toy.commit(root, "a secret by mistake")
    dvc_toy.call(root, "git", "rm", "--quiet", "--cached", "gone.txt")
    return root


def names(root: Path, commit: str) -> set[str]:
    return set(dvc_toy.call(root, "git", "ls-tree", "-r", "--name-only", commit).stdout.split())


def objects(repository: Path) -> bytes:
    batch = ["git", "cat-file", "--batch", "--batch-all-objects"]
    return subprocess.run(batch, cwd=repository, capture_output=True, check=True).stdout


def test_what_travels_is_what_git_tracks_and_what_the_stage_declares(project: Path) -> None:
    before = names(project, "HEAD")
    (project / "stages/a/words.py").write_text('WORDS = "edited"\n')
    (project / "stages/b/words.py").unlink()
    for path in ("stages/a/new.py", "stages/b/new.py", "notes.txt", "dvc.lock", "added.txt"):
        (project / path).write_text(path)
    dvc_toy.call(project, "git", "add", "added.txt")
    sent = snapshot.push_code_snapshot(project, "run", "a", "origin", ["stages/a", "stages/__init__.py"])
    assert names(project, sent.commit) == before - {".env", "gone.txt", "stages/b/words.py"} | {"stages/a/new.py", "dvc.lock", "added.txt"}
    assert dvc_toy.call(project, "git", "show", f"{sent.commit}:stages/a/words.py").stdout == 'WORDS = "edited"\n'
    assert set(sent.left_out) == {".env", "gone.txt", "notes.txt", "stages/b/new.py"}
    status = dvc_toy.call(project, "git", "status", "--porcelain").stdout
    assert {"A  added.txt", "?? notes.txt", " M stages/a/words.py"} <= set(status.splitlines()), "the index is as it was"


def test_no_secret_reaches_the_remote_or_git(project: Path) -> None:
    """Tracked in an unpushed commit, edited, untracked or declared: neither the file nor the commit travels, nor an object of it."""
    (project / ".env").write_text("TOKEN=planted-and-edited-82")
    (project / "models").mkdir()
    files = [".env.local", "server.pem", "models/model.safetensors", "stages/a/secrets.yaml"]
    for place, path in enumerate(files):
        (project / path).write_text(f"planted-untracked-{place}")
    (project / "stages/a/deploy").write_text(PEM)
    sent = snapshot.push_code_snapshot(project, "run", "a", "origin", ["stages/a", "models", ".env"])
    assert {".env", *files, "stages/a/deploy"} == set(sent.left_out) - {"gone.txt"}
    snapshot.drop(project, "run", "origin")
    assert b"planted" not in objects(project.parent / "origin.git")
    assert b"planted-untracked" not in objects(project) and b"planted-and-edited" not in objects(project)
    assert objects(project).count(PLANTED.encode()) == 1, "that of the commit alone"


def test_a_declared_folder_that_git_ignores_is_named(project: Path) -> None:
    (project / ".gitignore").write_text((project / ".gitignore").read_text() + "/models/\n/raw/\n")
    for folder in ("models/small", "raw"):
        (project / folder).mkdir(parents=True)
        (project / folder / "file").touch()
    sent = snapshot.push_code_snapshot(project, "run", "a", "", ["stages/a", "models/small", "raw", str(project.parent / "elsewhere")])
    assert set(sent.left_out) >= {"models/small", "raw"}
    line = snapshot.left_out_line([*"abcdef", "models/small"])
    assert line.startswith("nodes do not get a, b, c, d, e and 2 more: ") and "\n" not in line


def test_weights_that_a_stage_declares_and_git_does_not_ignore_are_refused(project: Path) -> None:
    weights = project / "stages" / "a" / "model.safetensors"
    weights.write_bytes(bytes(snapshot.LARGEST_BYTES + 1))
    with pytest.raises(ProjectError, match=r"stages/a/model\.safetensors has 20 MB and git does not ignore it: .*\.gitignore"):
        snapshot.push_code_snapshot(project, "run", "a", "", ["stages/a"])
    assert "stages/a/model.safetensors" in snapshot.push_code_snapshot(project, "run", "b", "", ["stages/b"]).left_out


def test_a_node_can_check_it_out(project: Path) -> None:
    sent = snapshot.push_code_snapshot(project, "run", "a", "origin", ["stages/a"])
    slot = project.parent / "slot"
    snapshot.check_out(slot, str(project.parent / "origin.git"), sent.ref, sent.commit)
    assert (slot / "stages/a/words.py").is_file() and not (slot / ".env").exists()


NAMES = """.env .env.local a/prod.env a/id_ed25519 tls/server.KEY .ssh/config x/.netrc models/a/b secrets.yaml
gcp-service-account.json aws_credentials.txt .dvc/config.local"""


@pytest.mark.parametrize("path", NAMES.split())
def test_names_of_secrets(tmp_path: Path, path: str) -> None:
    assert never_travels(tmp_path, path)


def test_no_file_of_the_project_passes_for_a_secret() -> None:
    tracked = dvc_toy.call(dvc_toy.ROOT, "git", "ls-files").stdout.splitlines()
    assert len(tracked) > 100 and [path for path in tracked if never_travels(dvc_toy.ROOT, path)] == []
