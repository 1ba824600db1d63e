"""A run of the project wherever it is recorded: a git revision, a DVC experiment, the workspace, or another folder with the project."""

from dataclasses import dataclass
from pathlib import Path

from tasks.dvc.lockfile import LOCK, Entry, locked_hashes, parse_lock
from tasks.dvc.remote import fetch_object
from tasks.dvc.repo import open_repo
from tasks.project.dict_diff import MISSING, differences, value_at
from tasks.project.graph import holds, is_code
from tasks.system.errors import ProjectError
from tasks.system.git import git, git_or_none

WORKSPACE = "workspace"


@dataclass(frozen=True)
class Revision:
    """`folder`: the project whose DVC cache and remote hold its data. `stages`: those of its dvc.lock."""

    name: str
    folder: Path
    commit: str
    stages: dict[str, Entry]

    def out(self, path: str) -> str | None:
        """The hash of the output `path`."""
        return next(
            (entries[path]["hash"] for stage in self.stages.values() if path in (entries := locked_hashes(stage.get("outs")))), None
        )

    @property
    def params(self) -> dict[str, object]:
        """file:key -> value as the stages were run with, keys of params.yaml without the file."""
        merged: dict[str, object] = {}
        for stage in self.stages.values():
            for file, values in (stage.get("params") or {}).items():
                merged |= values if file == "params.yaml" else {f"{file}:{key}": value for key, value in values.items()}
        return merged

    @property
    def code(self) -> dict[str, str]:
        deps = [locked_hashes(stage.get("deps")) for stage in self.stages.values()]
        return {path: entry["hash"] for entries in deps for path, entry in entries.items() if is_code(path)}


def read_revision(root: Path, cwd: Path, name: str) -> Revision:
    """`name`: `workspace`, a folder with a dvc.lock (relative to `cwd`), an experiment, or any name of a commit that git accepts."""
    folder = root if name == WORKSPACE else cwd / name
    if (folder / LOCK).exists():
        return Revision(name, folder, "", parse_lock((folder / LOCK).read_text(encoding="utf-8"), f"{name}: {LOCK}"))
    commit = resolve(root, name)
    if commit is None:
        raise ProjectError(f"{name}: no git revision, tag or experiment, nor a folder with a {LOCK} (experiments: dvc exp list --all)")
    stages = locked_stages(root, commit)
    if stages is None:
        raise ProjectError(f"{name}: {LOCK} is not in the commit {commit[:10]}; nothing had been run there, or it was not committed")
    return Revision(name, root, commit, stages)


def locked_stages(root: Path, commit: str) -> dict[str, Entry] | None:
    """The stages in the dvc.lock of `commit`; None where it has none."""
    text = git_or_none(root, "show", f"{commit}:./{LOCK}")
    return None if text is None else parse_lock(text, f"{commit[:10]}: {LOCK}")


def resolve(root: Path, name: str) -> str | None:
    """The commit that `name` is, an experiment's name before all else."""
    # git would not find an experiment by its name alone: its ref has the hash of its base in between.
    experiments = [(commit, ref) for commit, ref in references(root, "refs/exps") if ref.split("/")[-1] == name]
    if len(experiments) > 1:
        raise ProjectError(
            f"{name}: {len(experiments)} experiments have this name; give the commit ({', '.join(commit for commit, _ in experiments)})"
        )
    if experiments:
        return experiments[0][0]
    return git_or_none(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")


def references(root: Path, prefix: str) -> list[tuple[str, str]]:
    """(commit, full name) of every reference under `prefix`; DVC's own bookkeeping among the experiments left out."""
    lines = git(root, "for-each-ref", "--format=%(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end) %(refname)", prefix)
    pairs = [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines.splitlines()]
    return [pair for pair in pairs if not pair[1].startswith("refs/exps/") or pair[1].count("/") == 4]  # refs/exps/12/34.../name


def file_of(revision: Revision, path: str, required: bool = True) -> Path | None:
    """Where the content of the output `path` lies on this machine: in DVC's cache, fetched from the remote if need be."""
    md5 = revision.out(path)
    if md5 is None:
        if not required:
            return None
        raise ProjectError(f"{revision.name}: its {LOCK} has no {path}; run the stage that makes it there, and commit {LOCK}")
    with open_repo(revision.folder) as repo:
        cached = Path(repo.cache.local.oid_to_path(md5))
        if not cached.exists():
            fetch_object(repo, md5)
        if cached.exists():
            return cached
    if not required:
        return None
    remedy = "run it there again (gr2 run), or bring it into the cache with: dvc fetch --run-cache"
    raise ProjectError(f"{revision.name}: {path} ({md5}) is neither in DVC's cache nor in a remote; {remedy}")


def parameter_differences(revisions: list[Revision]) -> dict[str, list[object]]:
    """dotted key -> its value in each of `revisions`, for every key in which one differs from the first."""
    first, *others = [revision.params for revision in revisions]
    keys = dict.fromkeys(key for other in others for key, _, _ in differences(first, other))
    return {key: [_recorded_value(values, key) for values in (first, *others)] for key in keys}


def code_differences(revisions: list[Revision]) -> list[str]:
    """Code files that are not the same in all of `revisions`.

    A package is named as a whole where git does not tell its changed files: in a comparison with the workspace or another folder, and
    for a run of code that was not committed with its dvc.lock.
    """
    codes = [revision.code for revision in revisions]
    changed = sorted(path for path in {path for code in codes for path in code} if len({code.get(path) for code in codes}) > 1)
    # A folder outside of git's history has no commit that git could compare.
    if not changed or not all(revision.commit for revision in revisions):
        return changed
    first, *others = revisions
    names: set[str] = set()
    for other in others:
        listed = git_or_none(
            first.folder, "diff", "--name-only", "--no-renames", "--relative", "-z", first.commit, other.commit, "--", *changed
        )
        names.update(name for name in (listed or "").split("\0") if name)
    with open_repo(first.folder) as repo:  # a README in a package is no part of its hash
        names = {name for name in names if not repo.dvcignore.is_ignored_file(str(first.folder / name))}
    return sorted(file for path in changed for file in sorted(name for name in names if holds(path, name)) or [path])


def _recorded_value(params: dict[str, object], key: str) -> object:
    """None for a key that this revision lacks. A key may be recorded with its dots (`b.deep`) or down a section."""
    value = params[key] if key in params else value_at(params, key)
    return None if value is MISSING else value
