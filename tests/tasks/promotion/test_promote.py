"""Decisions on a made-up project of git and DVC: what is put in use, what is refused, the way back, and who reads the tags."""

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.dvc.lockfile import locked_hashes, read_lock
from tasks.maintenance.gc import collect_garbage
from tasks.promotion import decide
from tasks.promotion.decide import promote, propose
from tasks.promotion.record import OVERTAKEN, PROMOTED, PROPOSED, REFUSED, DecisionRecord, read_decisions, who, write_decision
from tasks.promotion.registry import read_registry
from tasks.promotion.rollback import rollback
from tasks.promotion.versions_to_serve import lay_out
from tasks.system.errors import ProjectError
from tests.support import dvc_toy
from tests.support.promotion_project import MODEL, answers, make, run, slates

BY = {"person": "Ada"}
GATES = {"resamples": 1000, "max_demotions": 0.9, "max_regressions": 0.5}
TABLE = slates()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """v0.0.1 is in use, and HEAD has a better model."""
    root = make(tmp_path_factory.mktemp("promotion") / "project", **GATES)
    run(root, answers(TABLE, 1.5), 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decide, "_run_checks", _passed)
        assert promote(root, root, None, BY).decision == PROMOTED
    run(root, answers(TABLE, 3.0), 2)
    return root


@pytest.fixture
def project(two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(dvc_toy.ROOT))  # the checks run as a process in the project, which has no stages of its own
    return dvc_toy.copy(two, tmp_path / "project")


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what follows from a decision: its checks take a second each."""
    monkeypatch.setattr(decide, "_run_checks", _passed)


def _passed(*_: object) -> dict[str, object]:
    return {"checks": [{"name": "difference", "verdict": "passed", "sentence": "superior", "evidence": {}}], "params": {}}


def weights(root: Path) -> bytes:
    return (root / MODEL / "model.safetensors").read_bytes()


def tags(root: Path) -> list[str]:
    return dvc_toy.call(root, "git", "tag", "--list", "reranker*").stdout.split()


def test_the_better_one_is_promoted_and_dvc_and_gto_see_it(project: Path, tmp_path: Path) -> None:
    record = promote(project, project, None, BY)
    assert (record.decision, record.version, record.tags) == (PROMOTED, "v0.0.2", ["reranker@v0.0.2", "reranker#prod#2"])
    assert record.reasons[0].startswith("superior: ndcg@5 +0.")
    assert record.champion and record.champion["version"] == "v0.0.1"
    message = dvc_toy.call(project, "git", "tag", "-l", "--format=%(contents)", "reranker@v0.0.2").stdout
    assert message.startswith("reranker v0.0.2 promoted over v0.0.1\n\nsuperior: ") and "weights: passed" in message
    listed = [line.split()[:3] for line in dvc_toy.call(project, "gto", "show", "reranker", "--plain").stdout.splitlines()[1:]]
    assert listed[0] == ["reranker", "v0.0.2", "prod"] and listed[1][:2] == ["reranker", "v0.0.1"] and "prod" not in listed[1]
    dvc_toy.dvc(project, "artifacts", "get", str(project), "reranker", "--stage", "prod", "-o", str(tmp_path / "by-stage"))
    dvc_toy.dvc(project, "artifacts", "get", str(project), "reranker", "--rev", "v0.0.1", "-o", str(tmp_path / "by-version"))
    assert (tmp_path / "by-stage/model.safetensors").read_bytes() == weights(project)
    assert (tmp_path / "by-version/model.safetensors").read_bytes() != weights(project)


@pytest.mark.parametrize(
    ("skill", "planted", "words"),
    [
        (0.5, {}, "difference failed: worse: ndcg@5 -0."),
        (9.0, {"bad": float("nan")}, "weights could not run"),
        (9.0, {"codes": 4}, "wrong vocabulary"),
    ],
)
def test_the_worse_and_the_broken_are_refused(project: Path, skill: float, planted: dict[str, object], words: str) -> None:
    run(project, answers(TABLE, skill), 7, **planted)
    before = tags(project)
    record = promote(project, project, None, BY)
    assert record.decision == REFUSED and any(words in reason for reason in record.reasons), record.reasons
    assert tags(project) == before


def test_after_new_data_one_is_judged_as_a_first_version_when_a_person_says_so(project: Path) -> None:
    other = slates(seed=4)
    run(project, answers(other, 3.0), 7, table=other)
    record = promote(project, project, None, BY)
    assert record.decision == REFUSED and any("different slates" in reason for reason in record.reasons)
    record = promote(project, project, None, BY, against_initial=True)
    assert record.version == "v0.0.2" and record.reasons[-1] == "compared with the initial ranking, not with v0.0.1: --against-initial"


def edit_params(root: Path) -> None:
    dvc_toy.set_param(root, "x: 2", "x: 3")


def commit_params(root: Path) -> None:
    edit_params(root)
    dvc_toy.commit(root, "params alone")


def edit_output(root: Path) -> None:
    file = root / "data/evaluate/outputs.parquet"
    file.unlink()
    file.write_bytes(b"edited")


def lose_cached(root: Path) -> None:
    md5 = next(out["md5"] for out in read_lock(root)["evaluate"]["outs"] if out["path"].endswith("outputs.parquet"))
    file = root / "data/evaluate/outputs.parquet"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)
    (root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).unlink()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (edit_params, "params.yaml is not committed as it stands"),
        (commit_params, "stale: the stage rl is not current (rl.x: 2 -> 3)"),
        (edit_output, "data/evaluate/outputs.parquet"),
        (lose_cached, "stale: the stage evaluate is not current (output data/evaluate/outputs.parquet not in cache)"),
    ],
)
def test_a_run_that_is_not_what_is_recorded(project: Path, change: Callable[[Path], None], words: str) -> None:
    change(project)
    record = promote(project, project, None, BY)
    assert record.decision == REFUSED and words in record.reasons[0] and tags(project) == ["reranker#prod#1", "reranker@v0.0.1"]


@pytest.mark.usefixtures("passing")
def test_a_commit_that_does_not_fit_itself(project: Path) -> None:
    """Named, it is judged by its own dvc.lock and params.yaml, whatever the workspace has."""
    text, md5 = (project / "dvc.lock").read_text(), locked_hashes(read_lock(project)["evaluate"]["deps"])[MODEL]["hash"]
    (project / "dvc.lock").write_text(text.replace(md5, f"{'0' * 32}.dir", 1))  # of the two, that in the deps of evaluate comes first
    dvc_toy.commit(project, "forged")
    record = promote(project, project, "HEAD", BY)
    assert record.decision == REFUSED and "stale: evaluate ran on another data/rl/model than HEAD has" in record.reasons[0]
    commit_params(project)
    record = promote(project, project, "HEAD", BY)
    assert "stale: rl ran with another rl.x than HEAD has" in record.reasons[0]
    assert promote(project, project, "HEAD~2", BY).decision == PROMOTED


def test_the_model_in_use_is_no_candidate(project: Path) -> None:
    assert "the same model as v0.0.1" in promote(project, project, "reranker@v0.0.1", BY).reasons[0]
    with pytest.raises(ProjectError, match=r"promote good: no commit.*to tag HEAD under it without deciding: gr2 promote --keep good"):
        promote(project, project, "good", BY)
    with pytest.raises(ProjectError, match=r"no artifact 'rerankr'; did you mean 'reranker'\? \(it has: reranker\)"):
        promote(project, project, None, BY, "rerankr")


@pytest.mark.usefixtures("passing")
def test_a_workspace_is_proposed_and_promoted_only_when_told(project: Path) -> None:
    """After a scheduled run nothing is committed; the branch is not the flow's to move."""
    head = run(project, answers(TABLE, 4.0), 3, commit=False)
    record = propose(project, {"schedule": "nightly"})
    assert record.decision == PROPOSED and "promote.automatic is false" in record.reasons[-1]
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace('"automatic": false', '"automatic": true'))
    status = dvc_toy.call(project, "git", "status", "--porcelain").stdout
    record = propose(project, {"schedule": "nightly"})
    assert (record.decision, record.version) == (PROMOTED, "v0.0.2")
    assert dvc_toy.call(project, "git", "rev-parse", "HEAD").stdout.strip() == head
    assert dvc_toy.call(project, "git", "status", "--porcelain").stdout == status
    assert dvc_toy.call(project, "git", "show", "reranker@v0.0.2:dvc.lock").stdout == (project / "dvc.lock").read_text()


@pytest.mark.usefixtures("passing")
def test_gc_keeps_versions(project: Path) -> None:
    """Of a commit that no branch has."""
    promote(project, project, None, BY)
    dvc_toy.call(project, "git", "reset", "-q", "--hard", "HEAD~1")
    dvc_toy.dvc(project, "checkout", "-q")
    kept = weights(project)
    collect_garbage(project, delete=True)
    rollback(project, "v0.0.2", BY)
    assert weights(project) != kept


@pytest.mark.usefixtures("passing")
def test_rollback_restores_the_bytes(project: Path) -> None:
    files = ("dvc.lock", "params.yaml", f"{MODEL}/model.safetensors", "data/evaluate/outputs.parquet", "data/evaluate/metrics.json")
    first = dvc_toy.call(project, "git", "show", "reranker@v0.0.1:dvc.lock").stdout
    promote(project, project, None, BY)
    second = {name: (project / name).read_bytes() for name in files}
    record = rollback(project, None, BY)
    assert (record.version, record.tags) == ("v0.0.1", ["reranker#prod#3"])
    assert (project / "dvc.lock").read_text() == first and weights(project) != second[files[2]]
    assert dvc_toy.dvc(project, "status").strip() == "Data and pipelines are up to date."
    with pytest.raises(ProjectError, match=r"v0\.0\.1 is the first version of reranker: there is none before it"):
        rollback(project, None, BY)
    rollback(project, "v0.0.2", BY)
    assert {name: (project / name).read_bytes() for name in files} == second
    assert read_registry(project, "reranker").champion == read_registry(project, "reranker").find("0.0.2")


@pytest.mark.usefixtures("passing")
def test_rollback_loses_nothing(project: Path) -> None:
    promote(project, project, None, BY)
    before = tags(project)
    edit_params(project)
    with pytest.raises(ProjectError, match=r"params\.yaml is not committed as it stands, and would be lost"):
        rollback(project, None, BY)
    dvc_toy.call(project, "git", "checkout", "-q", "params.yaml")
    edit_output(project)
    with pytest.raises(ProjectError, match=r"data/evaluate/outputs\.parquet was changed since its stage ran"):
        rollback(project, None, BY)
    shutil.rmtree(project / ".dvc/cache")
    with pytest.raises(ProjectError, match="is neither in DVC's cache nor in a remote"):
        rollback(project, None, BY)
    assert tags(project) == before and (project / "data/evaluate/outputs.parquet").read_bytes() == b"edited"


@pytest.mark.usefixtures("passing")
def test_rollback_skips_what_was_rolled_back(project: Path) -> None:
    """v1, v2 (bad), back to v1, v3: the one before v3 is v1."""
    promote(project, project, None, BY)
    rollback(project, None, BY, workspace=False)
    run(project, answers(TABLE, 5.0), 4)
    assert promote(project, project, None, BY).version == "v0.0.3"
    assert [version.name for version in read_registry(project, "reranker").line] == ["v0.0.1", "v0.0.3"]
    assert rollback(project, None, BY, workspace=False).version == "v0.0.1"


@pytest.mark.usefixtures("passing")
def test_of_two_at_once_one_wins_and_the_other_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(project, answers(TABLE, 4.0), 3)
    meet = ThreadPoolExecutor(2)
    real, arrived = decide.put_in_use, []

    def late(root: Path, registry: object, *rest: object) -> list[str]:
        """Both have decided before either writes."""
        arrived.append(registry)
        while len(arrived) < 2:
            time.sleep(0.01)
        return real(root, registry, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(decide, "put_in_use", late)
    records: list[DecisionRecord] = list(meet.map(lambda name: promote(project, project, name, BY), ("HEAD", "HEAD~1")))
    assert sorted(record.decision for record in records) == [OVERTAKEN, PROMOTED]
    (loser,) = [record for record in records if record.decision == OVERTAKEN]
    assert "was faster: v0.0.2 is in use now, and this decision was made against v0.0.1; decide again" in loser.reasons[0]
    assert not loser.tags and sorted(tags(project)) == ["reranker#prod#1", "reranker#prod#2", "reranker@v0.0.1", "reranker@v0.0.2"]


def test_the_command_writes_record_and_page(project: Path) -> None:
    said = dvc_toy.gr2(project, "promote")
    assert "reranker v0.0.2 promoted over v0.0.1" in said.stdout and "passed         slices" in said.stdout
    ((path, record),) = read_decisions(project)
    assert record.by == {"person": "Ada <ada@example.org>"} and str(record.candidate["outputs"][MODEL]).endswith(".dir")  # type: ignore[index]
    page = path.with_suffix(".html").read_text()
    assert "promoted" in page and "history of" in page and record.candidate["commit"] in page and "http" not in page
    refused = dvc_toy.gr2(project, "promote", "--json", ok=False)
    assert refused.returncode == 1 and json.loads(refused.stdout)["decision"] == REFUSED
    assert "v0.0.2" in dvc_toy.gr2(project, "promote", "--list").stdout
    assert "rolled back" in dvc_toy.gr2(project, "rollback").stdout
    assert [record.decision for _, record in read_decisions(project)] == [PROMOTED, REFUSED, "rolled back"]


def test_records_of_one_second_keep_apart(tmp_path: Path) -> None:
    record = DecisionRecord(REFUSED, "a", "b", {}, {}, None, ["x"], time="2030-01-01T00:00:00+00:00")
    paths = [write_decision(tmp_path, record) for _ in range(3)]
    assert [path.name for path in paths] == [f"20300101T000000Z-refused{suffix}.json" for suffix in ("", "-2", "-3")]
    assert [one for _, one in read_decisions(tmp_path)] == [record] * 3


def test_somebody_without_a_name_is_told_by_the_machine(tmp_path: Path) -> None:
    assert who(tmp_path, schedule="nightly", flow_run="")["schedule"] == "nightly" and "flow_run" not in who(tmp_path)


def test_a_version_is_laid_out_with_its_run_for_the_server(project: Path, passing: None) -> None:
    promote(project, project, None, BY)
    found = lay_out(project, "reranker")
    run, status = Path(found["run"]), dvc_toy.call(project, "git", "status", "--porcelain").stdout
    assert all(lay_out(project, name) == found for name in ("prod", "reranker#prod", "reranker@v0.0.2", "v0.0.2", "0.0.2"))
    assert found["version"] == "reranker@v0.0.2" and weights(run) == weights(project) and found["model"] == MODEL
    assert (run / "params.yaml").read_text() == (project / "params.yaml").read_text()
    assert (run / "data/retrieve/slates.parquet").exists() and not (run / "data/evaluate").exists()
    before = Path(lay_out(project, "v0.0.1")["run"])
    assert weights(before) != weights(run) and (before / "params.yaml").read_text().startswith("rl: {x: 1}")
    rollback(project, None, BY, workspace=False)
    assert lay_out(project, "reranker")["version"] == "reranker@v0.0.1" and weights(project) == weights(run)
    assert dvc_toy.call(project, "git", "status", "--porcelain").stdout == status, "the checkout is as it was"
    for name, words in [("v9.9.9", "no version v9.9.9"), ("other", "no artifact 'other'"), ("reranker#dev", "prod alone")]:
        with pytest.raises(ProjectError, match=words):
            lay_out(project, name)
