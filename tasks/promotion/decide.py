"""gr2 promote: candidate against champion, the decision, and the tags where it is yes."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tasks.dvc.lockfile import recorded_outputs
from tasks.dvc.revisions import WORKSPACE, Revision, read_revision, resolve
from tasks.ledger.anchor import promotion_trailer
from tasks.promotion.candidate import OUTPUTS, SLATES, Candidate, bring, fetch_missing, open_candidate
from tasks.promotion.own_commit import commit_workspace
from tasks.promotion.record import OVERTAKEN, PROMOTED, PROPOSED, REFUSED, DecisionRecord
from tasks.promotion.registry import ModelVersion, Overtaken, Registry, new_version, put_in_use, read_registry
from tasks.run.stage import stage_environment
from tasks.system.errors import ProjectError, nearest
from tasks.system.locks import shared_lock
from tasks.system.yaml_files import parse, read_text

SECTION = "promote"  # of params.yaml
PASSED, COULD_NOT_RUN = "passed", "could not run"  # as stages.promote.checks says them


@dataclass(frozen=True)
class Artifact:
    """name: under artifacts in dvc.yaml; path: of the model's folder."""

    name: str
    path: str


def promote(
    root: Path, cwd: Path, name: str | None, by: Mapping[str, str], artifact: str | None = None, against_initial: bool = False
) -> DecisionRecord:
    """Decides about the run `name` (None: the workspace as HEAD has it) and, where every check passed, puts it in use.

    against_initial: compare it with the initial ranking of its own slates, as a first version, where the champion answered others.
    ProjectError for a name that is no run, or an artifact that is none.
    """
    subject = read_artifact(root, artifact)
    if name and name != WORKSPACE and resolve(root, name) is None:
        raise ProjectError(
            f"promote {name}: no commit, branch, tag or experiment of this name; to tag HEAD under it without deciding: "
            f"gr2 promote --keep {name}"
        )
    registry = read_registry(root, subject.name)  # before all else: the decision stands only while this is what is in use
    with shared_lock(root):  # no gr2 gc meanwhile
        record, candidate = _decide(root, cwd, name, by, subject, registry, against_initial=against_initial)
        return _put_in_use(root, record, registry, candidate.commit) if candidate and record.decision == PROPOSED else record


def propose(root: Path, by: Mapping[str, str]) -> DecisionRecord:
    """The same about the workspace as it is after a scheduled run; puts in use only where promote.automatic is true.

    The version is then a commit of its own, with the workspace's dvc.lock: branch, index and files stay as they are.
    """
    subject = read_artifact(root, None)
    registry = read_registry(root, subject.name)
    record, candidate = _decide(root, root, None, by, subject, registry, committed=False)
    if not candidate or record.decision != PROPOSED:
        return record
    if not _section(root).get("automatic"):
        remedy = "to promote it: git add dvc.yaml dvc.lock params.yaml && git commit, then gr2 promote"
        return replace(record, reasons=[*record.reasons, f"promote.automatic is false; {remedy}"])
    return _put_in_use(root, record, registry, commit_workspace(root, f"{subject.name}: the run of {record.time}"))


def has_artifacts(root: Path) -> bool:
    """Whether dvc.yaml names anything to promote."""
    return bool(_artifacts(root)) and bool(_section(root))


def read_artifact(root: Path, name: str | None) -> Artifact:
    """None: the one that promote.artifact names."""
    name = name or str(_section(root).get("artifact") or "")
    if not name:
        raise ProjectError("params.yaml: promote.artifact is missing; copy the section from infra/profiles/default.yaml")
    artifacts = _artifacts(root)
    if name not in artifacts:
        raise ProjectError(
            f"promote: dvc.yaml has no artifact '{name}'{nearest(name, artifacts)} (it has: {', '.join(artifacts) or 'none'})"
        )
    path = str((artifacts[name] or {}).get("path") or "")
    if not path or "${" in path:
        raise ProjectError(f"dvc.yaml: artifacts.{name}.path: the folder of a model is expected, written out (got '{path}')")
    return Artifact(name, path)


def _decide(
    root: Path,
    cwd: Path,
    name: str | None,
    by: Mapping[str, str],
    artifact: Artifact,
    registry: Registry,
    committed: bool = True,
    against_initial: bool = False,
) -> tuple[DecisionRecord, Candidate | None]:
    """Proposed or refused. No candidate: its run is not whole, so that nothing of it could be checked."""
    champion = registry.champion
    told = {"name": champion.name, "version": champion.name, "commit": champion.commit} if champion else None
    blank = DecisionRecord(REFUSED, artifact.name, artifact.path, by, {"name": name or "workspace"}, told, [])
    try:
        candidate = open_candidate(root, cwd, name, committed)
    except ProjectError as error:
        return replace(blank, reasons=[str(error)], checks=[_could_not("run", str(error))]), None
    read = candidate.read_by_checks(artifact.path)
    record = replace(blank, candidate={"name": name or "workspace", "commit": candidate.commit, "outputs": read})
    try:
        champion_files: dict[str, str] = {}
        if champion:
            in_use = read_revision(root, root, champion.commit)
            champion_files = {} if against_initial else _read_of_champion(champion, in_use)
            record = replace(record, champion={**(told or {}), "outputs": champion_files})
            _refuse_the_same(champion, in_use, candidate, artifact)
        if candidate.commit:
            fetch_missing(root, recorded_outputs(candidate.revision.stages))  # a version must be there for whoever gets it later
        with TemporaryDirectory(prefix="gr2-promote-") as folder:
            bring(root, read, Path(folder) / "candidate")
            bring(root, champion_files, Path(folder) / "champion")
            result = _run_checks(root, Path(folder), artifact, bool(champion_files))
    except ProjectError as error:
        return replace(record, reasons=[str(error)], checks=[_could_not("run", str(error))]), candidate
    checks = result["checks"]
    against = [f"{check['name']} {check['verdict']}: {check['sentence']}" for check in checks if check["verdict"] != PASSED]
    if not against and checks:
        reasons = [check["sentence"] for check in checks if check["name"] in ("difference", "right to wrong")]
        if champion and against_initial:
            reasons.append(f"compared with the initial ranking, not with {champion.name}: --against-initial")
        return replace(record, decision=PROPOSED, reasons=reasons, checks=checks, params=result["params"]), candidate
    return replace(record, reasons=against or ["no check was made"], checks=checks, params=result["params"]), candidate


def _read_of_champion(champion: ModelVersion, revision: Revision) -> dict[str, str]:
    """path -> md5 of what the comparison reads of it."""
    hashes = {path: revision.out(path) for path in (OUTPUTS, SLATES)}
    if missing := [path for path, md5 in hashes.items() if md5 is None]:
        raise ProjectError(f"the champion {champion.name} has no {missing[0]} in its dvc.lock, so nothing can be compared with it")
    return {path: str(md5) for path, md5 in hashes.items()}


def _refuse_the_same(champion: ModelVersion, revision: Revision, candidate: Candidate, artifact: Artifact) -> None:
    if (md5 := candidate.revision.out(artifact.path)) and md5 == revision.out(artifact.path):
        raise ProjectError(f"the same model as {champion.name}, which is in use: {artifact.path} is {md5} in both")


def _run_checks(root: Path, folder: Path, artifact: Artifact, has_champion: bool) -> dict[str, Any]:
    """What stages.promote says. A process, not an import: tasks knows stages only by name."""
    words = ["--candidate", str(folder / "candidate"), "--artifact", artifact.path]
    words += ["--champion", str(folder / "champion")] if has_champion else []
    command = [sys.executable, "-m", "stages.promote", *words]
    environment = stage_environment(os.environ)
    result = subprocess.run(command, cwd=root, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    try:
        if result.returncode:
            raise ValueError
        answer: dict[str, Any] = json.loads(result.stdout)
    except ValueError:
        raise ProjectError(f"the checks could not run: {(result.stderr.strip().splitlines() or ['no message'])[-1]}") from None
    return answer


def _put_in_use(root: Path, record: DecisionRecord, registry: Registry, commit: str) -> DecisionRecord:
    version = new_version(registry, commit)
    record = replace(record, decision=PROMOTED, version=version.name, candidate={**record.candidate, "commit": commit})
    try:
        tags = put_in_use(root, registry, version, tag_message(root, record))
    except Overtaken as error:
        return replace(record, decision=OVERTAKEN, version="", reasons=[str(error)])
    return replace(record, tags=tags)


def tag_message(root: Path, record: DecisionRecord) -> list[str]:
    """The decision for whoever has the repository alone: its sentence, the checks, and the head of the lineage record."""
    lines = [f"{check['name']}: {check['verdict']}: {check['sentence']}" for check in record.checks]
    by = ", ".join(f"{key} {value}" for key, value in record.by.items())
    return [record.headline, "\n".join(record.reasons), "\n".join(lines), f"Decided by {by} at {record.time}", promotion_trailer(root)]


def _could_not(name: str, sentence: str) -> dict[str, object]:
    return {"name": name, "verdict": COULD_NOT_RUN, "sentence": sentence, "evidence": {}}


def _artifacts(root: Path) -> dict[str, Any]:
    document = parse(read_text(root / "dvc.yaml", "run at the root of the project"), "dvc.yaml")
    artifacts = document.get("artifacts") if isinstance(document, dict) else None
    return artifacts if isinstance(artifacts, dict) else {}


def _section(root: Path) -> dict[str, Any]:
    document = parse(read_text(root / "params.yaml", "gr2 run --profile default writes it"), "params.yaml")
    section = document.get(SECTION) if isinstance(document, dict) else None
    return section if isinstance(section, dict) else {}
