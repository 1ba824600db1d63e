"""A second workspace of the project: its files as git would hold them, in a repository of their own, on the same DVC cache.

What lies outside version control and is named in params.yaml by a relative path (raw data, models) is linked, not copied.
Refreshing one that exists keeps its data/ and what its own runs wrote into dvc.lock.
"""

import filecmp
import os
import shutil
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from tasks.dvc.lock_copy import keep
from tasks.dvc.lockfile import Entry
from tasks.dvc.repo import mend_lock, share_cache
from tasks.project.graph import Graph, holds, is_code, read_graph
from tasks.system.errors import ProjectError
from tasks.system.git import git
from tasks.system.yaml_files import dump, parse, read_text, write_text

PARAMS, LOCK = "params.yaml", "dvc.lock"
LINKED = Path(".git") / "info" / "exclude"  # git's list of what it shall not see: here the links
NEVER_LINKED = {".", ".git", ".dvc", ".gr2", "dvc.yaml", LOCK, PARAMS}


def sync_clone(root: Path, copy: Path, params: str, message: str) -> list[str]:
    """Makes `copy` what the project at `root` is now, with `params` as its params.yaml. Returns what it did with paths in params.yaml."""
    graph = read_graph(root)
    document = parse(params, PARAMS, round_trip=True)
    notes = [f"{key}: {path} -> {_set_absolute(document, key, root)}" for key, path in _paths(root, graph, document) if _leads_out(path)]
    links = _links(root, (path for _, path in _paths(root, graph, document)))
    copy.mkdir(parents=True, exist_ok=True)
    if not (copy / ".git").exists():
        git(copy, "init", "-q")
    _unlink(copy)
    _copy_files(root, copy, graph, links)
    _link(root, copy, links)
    write_text(copy / PARAMS, dump(document) if notes else params)
    share_cache(root, copy)
    _commit_and_merge_lock(root, copy, message)
    return [*notes, *(f"{path}: linked" for path in links)]


def _git_files(folder: Path) -> list[str]:
    """Files that git holds or would hold, links included."""
    listed = git(folder, "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate", "-z").split("\0")
    return [name for name in listed if name and ((folder / name).is_symlink() or (folder / name).is_file())]


def _copy_files(root: Path, copy: Path, graph: Graph, links: list[str]) -> None:
    def is_from_a_run(name: str) -> bool:
        return name in (LOCK, PARAMS) or graph.producer(name) is not None

    files = [name for name in _git_files(root) if not any(holds(link, name) for link in links)]
    for name in set(_git_files(copy)) - set(files):
        if not is_from_a_run(name):
            (copy / name).unlink()
            _remove_empty(copy, Path(name).parent)
    for name in files:
        source, target = root / name, copy / name
        if name in (LOCK, PARAMS) or (is_from_a_run(name) and target.exists()):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_symlink() and not source.is_symlink() and target.exists() and filecmp.cmp(source, target):
            continue
        target.unlink(missing_ok=True)  # a link there must not be written through
        if source.is_symlink():
            target.symlink_to(_link_text(root, name))
        else:
            shutil.copy2(source, target)


def _link_text(root: Path, name: str) -> str:
    """Where the copy of the link `name` points: to the same place in the copy if it lies in the project, else where it pointed."""
    text = os.readlink(root / name)
    inside = not os.path.isabs(text) and not _leads_out(os.path.join(os.path.dirname(name), text))
    return text if inside else os.path.join((root / name).parent, text)


def _remove_empty(copy: Path, folder: Path) -> None:
    while folder != Path(".") and not any((copy / folder).iterdir()):
        (copy / folder).rmdir()
        folder = folder.parent


def _paths(root: Path, graph: Graph, document: Any, parent_key: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, value) of every text in params.yaml that is a relative path to something outside the code and the stages' outputs."""
    for key, value in document.items():
        name = f"{parent_key}.{key}" if parent_key else str(key)
        if isinstance(value, dict):
            yield from _paths(root, graph, value, name)
        elif isinstance(value, str) and value.strip() and not os.path.isabs(value) and os.path.exists(root / value):
            path = os.path.normpath(value)
            is_output = any(holds(out, path) or holds(path, out) for stage in graph.stages.values() for out in stage.outs)
            if not (is_output or is_code(path) or path.split("/")[0] in NEVER_LINKED):
                yield name, path


def _leads_out(path: str) -> bool:
    return os.path.normpath(path).split(os.sep)[0] == ".."


def _set_absolute(document: Any, key: str, root: Path) -> str:
    """From the copy `..` leads elsewhere, and no link can stand there: the value becomes absolute, and its stage is asked again."""
    *sections, last = key.split(".")
    for section in sections:
        document = document[section]
    document[last] = os.path.normpath(root / document[last])
    return str(document[last])


def _links(root: Path, paths: Iterator[str]) -> list[str]:
    """The outermost ones, each cut at its first part that is itself a link: nothing is ever written through one."""
    links: list[str] = []
    for path in sorted(set(paths)):
        steps = list(accumulate(path.split("/"), "{}/{}".format))
        first = next((step for step in steps if (root / step).is_symlink()), path)
        if not any(holds(link, first) for link in links):
            links.append(first)
    return links


def _unlink(copy: Path) -> None:
    """Removes the links of the last refresh."""
    listed = (copy / LINKED).read_text(encoding="utf-8") if (copy / LINKED).exists() else ""
    for line in listed.splitlines():
        if line.startswith("/") and (copy / line[1:]).is_symlink():
            (copy / line[1:]).unlink()


def _link(root: Path, copy: Path, links: list[str]) -> None:
    # In .git/info/exclude, not in .gitignore: the copy's files are those of the project, byte for byte.
    (copy / LINKED).parent.mkdir(parents=True, exist_ok=True)
    write_text(copy / LINKED, "".join(f"/{link}\n" for link in links) + "verdict.json\n")
    for link in links:
        if (copy / link).exists():
            raise ProjectError(f"{copy / link} is in the way of a link to {root / link}; remove it")
        (copy / link).parent.mkdir(parents=True, exist_ok=True)
        (copy / link).symlink_to(root / link)


def _commit_and_merge_lock(root: Path, copy: Path, message: str) -> None:
    """Commits the copy with the original's dvc.lock, then gives each stage its own entry back unless the original has run it since."""
    # Either file may be what a killed DVC left; half of it would be committed as the copy's base.
    for folder in (root, copy):
        mend_lock(folder)
    last_commit = git(copy, "rev-list", "--all", "--max-count=1").strip()
    base_stages = _stages(git(copy, "show", f"HEAD:{LOCK}") if last_commit and git(copy, "ls-tree", "HEAD", LOCK) else "")
    copy_stages = _stages(read_text(copy / LOCK, "") if (copy / LOCK).exists() else "")
    text = read_text(root / LOCK, "") if (root / LOCK).exists() else ""
    original_stages = _stages(text)
    # Where the original has none, the copy's commit must not have one either.
    (copy / LOCK).unlink(missing_ok=True)
    if text:
        write_text(copy / LOCK, text)
    git(copy, "add", "--all")
    # The user's signing key and hooks are for the user's commits: a hook could refuse, a key could ask for its password.
    identity = ["-c", "user.name=gr2", "-c", "user.email=gr2@localhost", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"]
    if not last_commit or git(copy, "status", "--porcelain"):
        git(copy, *identity, "commit", "--quiet", "--allow-empty", "--no-verify", "--message", message)
    kept_entries = {name: entry for name, entry in copy_stages.items() if original_stages.get(name) == base_stages.get(name)}
    if kept_entries:
        write_text(copy / LOCK, dump({"schema": "2.0", "stages": {**original_stages, **kept_entries}}, indented_lists=False))
    keep(copy)  # this is the file as it is meant to be, with whatever stages


def _stages(text: str) -> dict[str, Entry]:
    document = parse(text, LOCK, round_trip=True) if text else {}
    return dict(document.get("stages") or {})
