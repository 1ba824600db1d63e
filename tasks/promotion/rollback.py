"""gr2 rollback: the version before is in use again, and its bytes are back in the workspace."""

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from tasks.dvc.lockfile import recorded_outputs
from tasks.dvc.revisions import locked_stages
from tasks.dvc.workspace import check_out_recorded, edited_outputs
from tasks.maintenance.promotions import RECORDED
from tasks.promotion.candidate import fetch_missing
from tasks.promotion.decide import read_artifact, tag_message
from tasks.promotion.record import OVERTAKEN, ROLLED_BACK, DecisionRecord
from tasks.promotion.registry import ModelVersion, Overtaken, Registry, put_in_use, read_registry
from tasks.system.errors import ProjectError
from tasks.system.git import git, git_bytes
from tasks.system.locks import exclusive_lock
from tasks.system.yaml_files import write_text


def rollback(root: Path, version: str | None, by: Mapping[str, str], artifact: str | None = None, workspace: bool = True) -> DecisionRecord:
    """Puts the version before the champion, or `version`, in use; then restores the workspace to what it recorded, unless told not to.

    ProjectError, with nothing changed, where there is no such version, its bytes are gone, or the workspace has a dvc.lock, dvc.yaml or
    params.yaml that no commit has. Called for the champion itself, it restores the workspace alone.
    """
    subject = read_artifact(root, artifact)
    registry = read_registry(root, subject.name)
    champion = registry.champion
    target = registry.find(version) if version else _before(registry)
    stages = locked_stages(root, target.commit)
    if not stages:
        raise ProjectError(f"rollback: the commit {target.commit[:10]} of {target.name} has no dvc.lock; name another version")
    hashes = recorded_outputs(stages)
    fetch_missing(root, hashes)  # before anything changes: a version whose bytes are gone is none to go back to
    told = {"name": champion.name, "version": champion.name, "commit": champion.commit} if champion else None
    reason = f"{target.name} takes the place of {champion.name}" if champion else f"{target.name} is in use again"
    candidate = {"name": target.name, "commit": target.commit, "outputs": {subject.path: hashes.get(subject.path, "")}}
    record = DecisionRecord(ROLLED_BACK, subject.name, subject.path, by, candidate, told, [reason], version=target.name)
    # By tags alone also while a run is at work: who serves by tag is not to wait for a training.
    with exclusive_lock(root, "rollback (without --tags-only)") if workspace else nullcontext():
        if workspace:
            _check_kept(root)
        if target != champion:
            try:
                record = replace(record, tags=put_in_use(root, registry, target, tag_message(root, record)))
            except Overtaken as error:
                return replace(record, decision=OVERTAKEN, version="", reasons=[str(error)])
        if workspace:
            _restore(root, target)
    return record


def _before(registry: Registry) -> ModelVersion:
    line = registry.line
    if not line:
        raise ProjectError(f"rollback: no version of {registry.artifact} is in use; name one (gr2 promote --list shows them)")
    if len(line) < 2:
        raise ProjectError(f"rollback: {line[-1].name} is the first version of {registry.artifact}: there is none before it")
    return line[-2]


def _check_kept(root: Path) -> None:
    """The outputs lie in DVC's cache; the three files that name them would be lost if no commit had them."""
    commits = git(root, "for-each-ref", "--format=%(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end)", "refs/tags").split()
    for name in RECORDED:
        text = (root / name).read_bytes() if (root / name).exists() else None
        if text is not None and not any(git_bytes(root, "show", f"{commit}:./{name}") == text for commit in ("HEAD", *commits)):
            raise ProjectError(
                f"rollback: {name} is not committed as it stands, and would be lost; run: git add {' '.join(RECORDED)} && git commit"
            )
    if edited := edited_outputs(root):
        raise ProjectError(f"rollback: {edited[0]} was changed since its stage ran, and would be lost; move it away")


def _restore(root: Path, version: ModelVersion) -> None:
    """dvc.lock, dvc.yaml and params.yaml of the version, and every output that they name. After an error the three are as before."""
    before = {name: (root / name).read_text(encoding="utf-8") for name in RECORDED if (root / name).exists()}
    try:
        for name in RECORDED:
            if (recorded := git_bytes(root, "show", f"{version.commit}:./{name}")) is not None:
                write_text(root / name, recorded.decode("utf-8"))
        check_out_recorded(root)
    except BaseException:
        for name, text in before.items():
            write_text(root / name, text)
        with suppress(ProjectError):  # the first error is the one to tell
            check_out_recorded(root)
        raise
