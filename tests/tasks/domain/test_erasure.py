"""A deletion request from end to end, on its own small project: the real ingest, and a stage behind it that `trains`."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.commands.forget import _report
from tasks.domain.erasure import find_user_data, list_digest, remaining_data
from tasks.project.graph import read_graph
from tasks.system.errors import ProjectError
from tests.support import dvc_toy

USER, OTHER = "u3", "u1"
DIGEST = hashlib.sha256(b"saltu3").hexdigest()
PARAMS = """\
# What this project is about.
ingest:
  source: folder  # its form is recognised
  folder: raw
  forget: []   # digests
  forget_salt: salt
  min_interactions: 5
  min_base: 2
  valid_positions: 1
  test_positions: 2

train:
  lr: 1.0e-3
"""
PIPELINE = """\
stages:
  ingest:
    cmd: python -m stages.ingest
    params: [ingest]
    deps: [raw]
    outs: [data/ingest/interactions.parquet, data/ingest/users.parquet, data/ingest/items.parquet, data/ingest/quarantine.parquet]
    metrics: [data/ingest/metrics.json]
  train:
    cmd: python train.py
    params: [train]
    deps: [train.py, data/ingest/interactions.parquet]
    outs: [data/train/model]
  titles:
    cmd: python titles.py
    deps: [titles.py, data/ingest/items.parquet]
    outs: [data/titles/out.txt]
"""
TRAIN = """\
import pathlib, polars as pl
folder = pathlib.Path("data/train/model")
folder.mkdir(parents=True, exist_ok=True)
(folder / "weights.txt").write_text(str(pl.read_parquet("data/ingest/interactions.parquet").sum().rows()))
"""
TITLES = """\
import pathlib, polars as pl
pathlib.Path("data/titles").mkdir(parents=True, exist_ok=True)
pathlib.Path("data/titles/out.txt").write_text(str(pl.read_parquet("data/ingest/items.parquet")["title"].to_list()))
"""


def raw(without: str = "") -> str:
    rows = [(f"u{user}", item, 100 * user + item) for user in range(1, 6) for item in range(1, 13)]
    return "user_id:token\titem_id:token\ttimestamp:float\n" + "".join(f"{u}\t{i}\t{t}\n" for u, i, t in rows if u != without)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run, committed and tagged with everyone in it; a control's workspace and the message of a failed run hold the user, too."""
    root = tmp_path_factory.mktemp("forget") / "project"
    (root / "raw").mkdir(parents=True)
    (root / "raw" / "x.inter").write_text(raw())
    items = "".join(f"{item}\tFilm {item}\t1990\tDrama\n" for item in range(1, 13))
    (root / "raw" / "x.item").write_text("item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n" + items)
    (root / "infra" / "profiles").mkdir(parents=True)
    for path, text in {
        "dvc.yaml": PIPELINE,
        "params.yaml": PARAMS,
        "infra/profiles/default.yaml": PARAMS,
        "train.py": TRAIN,
        "titles.py": TITLES,
        ".gitignore": "/data/*/\n/.gr2/\n__pycache__/\n",
    }.items():
        (root / path).write_text(text)
    dvc_toy.call(root, "git", "init", "-q", "-b", "main")
    dvc_toy.dvc(root, "init", "-q")
    repro(root)
    dvc_toy.commit(root, "everyone")
    dvc_toy.call(root, "git", "tag", "v1")
    copy = root / ".gr2" / "controls" / "c" / "data" / "ingest"
    copy.mkdir(parents=True)
    (copy / "users.parquet").write_bytes((root / "data/ingest/users.parquet").read_bytes())
    (root / ".gr2" / "logs").mkdir()
    (root / ".gr2" / "logs" / "ingest.log").write_text(
        f"ingest: x.inter: 1 of 60 rows\n  row 7: timestamp is not a number: '{USER}\\t5\\tx'\n"
    )
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    return dvc_toy.copy(made, tmp_path / "project")


def repro(root: Path) -> None:
    dvc_toy.call(root, sys.executable, "-m", "dvc", "repro", "-q", PYTHONPATH=str(dvc_toy.ROOT))


def found_of(root: Path, user: str = USER) -> dict[str, Any]:
    return json.loads(json.dumps(find_user_data(root, read_graph(root), user)))


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.mark.slow
def test_the_report_and_then_the_whole_deletion(project: Path) -> None:
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file() and ".dvc/tmp" not in str(path)}
    found = found_of(project)
    assert found == json.loads(dvc_toy.gr2(project, "forget", USER, "--json").stdout)
    assert found["digest"] == DIGEST and not found["listed"] and found["raw"]["rows"] == 12
    table, users = (pl.read_parquet(project / f"data/ingest/{name}.parquet") for name in ("interactions", "users"))
    own = table.filter(pl.col("user") == users.filter(pl.col("source_id") == USER)["user"].item())
    assert found["interactions"] == dict(own["split"].value_counts().rows()) and sum(found["interactions"].values()) == 12
    assert set(found["stages"]) == {"ingest", "train", "titles"} and found["stages"]["train"] == ["data/train/model"]
    (version,) = found["versions"]
    assert version["names"] == ["workspace", "refs/heads/main", "refs/tags/v1"] and version["holds"] is True
    assert version["users"] == md5(project / "data/ingest/users.parquet")
    assert found["copies"] == [".gr2/controls/c/data/ingest/users.parquet"] and found["messages"] == [".gr2/logs/ingest.log"]
    words = "\n".join(_report(found))
    assert "12 rows of theirs" in words and "data/train/model" in words and "refs/tags/v1".removeprefix("refs/") in words
    checked = dvc_toy.gr2(project, "forget", USER, "--check", ok=False)
    assert checked.returncode == 1 and "data/ingest/users.parquet holds the user" in checked.stdout
    assert {path: path.read_bytes() for path in before} == before  # a report changes nothing

    assert json.loads(dvc_toy.gr2(project, "forget", USER, "--apply", "--json").stdout)["changed"] == [
        "params.yaml",
        "infra/profiles/default.yaml",
    ]
    wanted = PARAMS.replace("forget: []   # digests", f'forget:      # digests\n    - "{DIGEST}"')
    assert (project / "params.yaml").read_text() == wanted  # nothing else changed, and no id is in it
    assert (project / "infra/profiles/default.yaml").read_text() == (project / "params.yaml").read_text()
    assert list_digest(project, DIGEST) == []  # once is enough
    assert "stages" in remaining_data(found_of(project))

    titles, model = md5(project / "data/titles/out.txt"), md5(project / "data/train/model/weights.txt")
    repro(project)
    assert md5(project / "data/titles/out.txt") == titles and md5(project / "data/train/model/weights.txt") != model
    against = remaining_data(found_of(project))
    assert set(against) == {"cache", "copies"}  # nothing current, but the versions of before

    dvc_toy.commit(project, "without them")
    subprocess.run(["rm", "-r", str(project / ".gr2")], check=True)
    again = found_of(project)
    assert [own["names"] for own in again["versions"]] == [["refs/tags/v1"]] and again["dense"] is None
    dvc_toy.call(project, "git", "tag", "-d", "v1")
    older = found_of(project)["versions"]
    assert [own["names"] for own in older] == [[]] and older[0]["holds"] is True  # the commit before
    dvc_toy.dvc(project, "gc", "--workspace", "--force")
    done = dvc_toy.gr2(project, "forget", USER, "--check")
    assert done.stdout.startswith("gone: ")
    assert remaining_data(found_of(project, OTHER)).keys() >= {"params", "outputs", "cache"}

    never = dvc_toy.copy(project, project.parent / "never")
    (never / "raw" / "x.inter").write_text(raw(without=USER))
    (never / "params.yaml").write_text(PARAMS)
    repro(never)
    for name in ("data/ingest/interactions.parquet", "data/ingest/users.parquet", "data/train/model/weights.txt"):
        assert md5(project / name) == md5(never / name), name


def test_a_version_whose_table_is_gone_may_hold_them(project: Path) -> None:
    users = md5(project / "data/ingest/users.parquet")
    list_digest(project, DIGEST)
    repro(project)
    (project / ".dvc/cache/files/md5" / users[:2] / users[2:]).unlink()
    subprocess.run(["rm", "-r", str(project / ".gr2")], check=True)
    found = found_of(project)
    assert set(remaining_data(found)) == {"versions"}
    (version,) = found["versions"]
    assert (version["names"], version["holds"]) == (["refs/heads/main", "refs/tags/v1"], None)
    assert "data/train/model" in version["cached"] and "data/titles/out.txt" not in version["cached"]  # the latter is the same now


def test_a_version_that_a_merge_left_behind_is_found(project: Path) -> None:
    dvc_toy.call(project, "git", "checkout", "-q", "-b", "side")
    with (project / "train.py").open("a") as file:
        file.write('(folder / "more.txt").write_text("of the side branch")\n')
    repro(project)
    dvc_toy.commit(project, "side")
    dvc_toy.call(project, "git", "checkout", "-q", "main")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    dvc_toy.call(project, "git", *identity, "merge", "-q", "-s", "ours", "-m", "as it was", "side")
    dvc_toy.call(project, "git", "branch", "-q", "-D", "side")
    names = [version["names"] for version in found_of(project)["versions"]]
    assert names == [["workspace", "refs/heads/main", "refs/tags/v1"], []]


def test_wrong_requests(project: Path) -> None:
    assert any("nobody by that id is known here" in line for line in _report(found_of(project, "u99")))
    empty = dvc_toy.gr2(project, "forget", " ", ok=False)
    assert empty.returncode == 2 and "USER is empty" in empty.stderr
    text = (project / "params.yaml").read_text()
    default = project / "infra" / "profiles" / "default.yaml"
    default.write_text(PARAMS.replace("ingest:", "ingests:"))
    with pytest.raises(ProjectError, match=r"default\.yaml: the section 'ingest' is missing"):
        list_digest(project, DIGEST)
    assert (project / "params.yaml").read_text() == text  # both files or none
    default.unlink()
    (project / "params.yaml").write_text(PARAMS.replace("forget: []   # digests", "forget: 5"))
    with pytest.raises(ProjectError, match="a list is expected"):
        list_digest(project, DIGEST)
    (project / "params.yaml").write_text(PARAMS.replace("  forget: []   # digests\n", ""))
    assert list_digest(project, DIGEST) == ["params.yaml"]
    assert f'ingest:\n  forget:\n    - "{DIGEST}"\n  source: folder  # its form' in (project / "params.yaml").read_text()
