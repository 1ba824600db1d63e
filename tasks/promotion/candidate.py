"""A run that is to be judged: what dvc.lock records of it, whether that is whole, and its files out of DVC's cache."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.dvc.dir_listing import object_path, read_json
from tasks.dvc.lockfile import Entry, locked_hashes, recorded_outputs
from tasks.dvc.remote import fetch_object
from tasks.dvc.repo import open_repo
from tasks.dvc.revisions import WORKSPACE, Revision, read_revision
from tasks.maintenance.promotions import check_committed, check_outputs
from tasks.project.dict_diff import differences, value_at
from tasks.project.graph import read_graph
from tasks.project.shards import stage_names
from tasks.project.templates import Templates
from tasks.run.plan import make_plan
from tasks.system.errors import ProjectError
from tasks.system.git import git, git_or_none
from tasks.system.yaml_files import parse

OUTPUTS, SLATES, SIDS = "data/evaluate/outputs.parquet", "data/retrieve/slates.parquet", "data/tokenize/sids.parquet"


@dataclass(frozen=True)
class Candidate:
    """commit: the one that a version would be; empty for a workspace that is not committed."""

    revision: Revision
    commit: str

    def read_by_checks(self, model: str) -> dict[str, str]:
        """path -> md5 of what the checks read of it, as far as its dvc.lock has it."""
        hashes = recorded_outputs(self.revision.stages)
        return {path: md5 for path, md5 in hashes.items() if path in (OUTPUTS, SLATES, SIDS, model) or Path(path).name == "metrics.json"}


def open_candidate(root: Path, cwd: Path, name: str | None, committed: bool = True) -> Candidate:
    """`name`: see read_revision; None: the workspace, which must then be what HEAD records, unless `committed` is false.

    ProjectError that names what is stale, missing or not committed.
    """
    if name is None or name == WORKSPACE:
        if committed:
            check_committed(root)
        graph = read_graph(root)
        for stage in make_plan(root, graph).stages:
            if not stage.current:
                cause = str(stage.causes[0]) if stage.causes else "it would run"
                raise ProjectError(f"stale: the stage {stage.name} is not current ({cause}); run: gr2 run, and commit dvc.lock")
        check_outputs(root)
        return Candidate(read_revision(root, cwd, WORKSPACE), git(root, "rev-parse", "HEAD").strip() if committed else "")
    revision = read_revision(root, cwd, name)
    if not revision.commit:
        raise ProjectError(f"{name}: a folder is no candidate; a version is a tag on a commit: name a commit, branch, tag or experiment")
    if faults := list(_faults(root, revision)):
        raise ProjectError("; ".join(faults))
    return Candidate(revision, revision.commit)


def _faults(root: Path, revision: Revision) -> Iterator[str]:
    """Where the dvc.lock of a commit does not fit itself, or the dvc.yaml and params.yaml beside it."""
    made = recorded_outputs(revision.stages)
    for name, entry in revision.stages.items():
        for path, content in locked_hashes(entry.get("deps")).items():
            if path in made and made[path] != content["hash"]:
                yield f"stale: {name} ran on another {path} than {revision.name} has; run the stage there, and commit dvc.lock"
    described = parse(git_or_none(root, "show", f"{revision.commit}:./dvc.yaml") or "", "dvc.yaml") or {}
    params_text = git_or_none(root, "show", f"{revision.commit}:./params.yaml") or ""
    for name in stage_names(described, Templates(root, params_text)):
        if name not in revision.stages:
            yield f"the stage {name} never ran in {revision.name}; run it there, and commit dvc.lock"
    params = parse(params_text, "params.yaml") or {}
    for name, entry in revision.stages.items():
        yield from (f"stale: {name} ran with another {key} than {revision.name} has" for key in _other_params(entry, params))


def _other_params(entry: Entry, params: dict[str, object]) -> Iterator[str]:
    for key, recorded in ((entry.get("params") or {}).get("params.yaml") or {}).items():
        yield from (leaf for leaf, _, _ in differences(recorded, value_at(params, key), key))


def bring(root: Path, hashes: dict[str, str], folder: Path) -> None:
    """Lays the files of these outputs (path -> md5) under `folder`, as links into DVC's cache; from the remote what is not there."""
    fetch_missing(root, hashes)
    for path, md5 in hashes.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not md5.endswith(".dir"):
            target.symlink_to(object_path(root, md5))
            continue
        for entry in read_json(object_path(root, md5)):
            file = target / entry["relpath"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.symlink_to(object_path(root, entry["md5"]))


def fetch_missing(root: Path, hashes: dict[str, str]) -> None:
    """ProjectError for an output that is whole neither in DVC's cache nor in its remote. Files in folders count."""
    for path, md5 in hashes.items():
        _fetch(root, path, [md5])
        if md5.endswith(".dir"):
            _fetch(root, path, [entry["md5"] for entry in read_json(object_path(root, md5))])


def _fetch(root: Path, path: str, digests: Iterable[str]) -> None:
    missing = [md5 for md5 in digests if not object_path(root, md5).exists()]
    if missing:
        with open_repo(root) as repo:
            for md5 in missing:
                fetch_object(repo, md5)
    for md5 in missing:
        if not object_path(root, md5).exists():
            raise ProjectError(f"{path} ({md5}) is neither in DVC's cache nor in a remote; run the stage that makes it again: gr2 run")
