"""What DVC's cache holds that nothing needs any more, and what keeps the rest.

Kept is what is reachable from the workspace, from HEAD, branches, tags (promotions are tags), DVC experiments, queued ones too, and from
the workspaces of controls, which share the cache: what `dvc gc` keeps of them, and whatever their dvc.lock names besides.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.dvc.cache import delete_unused
from tasks.dvc.lockfile import Entry, read_lock
from tasks.dvc.repo import open_repo
from tasks.dvc.revisions import locked_stages, references, resolve
from tasks.experiments.queue import queued
from tasks.maintenance.promotions import PROMOTED
from tasks.project.graph import Graph, read_graph
from tasks.system.errors import ProjectError
from tasks.system.locks import workspaces
from tasks.system.yaml_files import parse

KINDS = {"refs/heads/": "branch", PROMOTED: "promotion", "refs/tags/": "tag", "refs/exps/": "experiment"}


@dataclass(frozen=True)
class GcRoot:
    """Something that keeps data: `outs` outputs of `size` bytes in all, as its dvc.lock says (others may keep the same)."""

    kind: str
    name: str
    outs: int
    size: int


@dataclass(frozen=True)
class UnreferencedObject:
    """An object that nothing keeps. `stage` and `path`: whose output it was, empty where no record tells."""

    hash: str
    size: int
    stage: str
    path: str


@dataclass(frozen=True)
class GcReport:
    """`where`: cache, or remote. `unneeded`: the biggest first. `unlisted`: folders that something needs, whose listing is not in the
    cache, as in a fresh clone that has fetched nothing: which files they hold is not known here."""

    where: str
    keepers: tuple[GcRoot, ...]
    unneeded: tuple[UnreferencedObject, ...]
    unlisted: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.unneeded)


def collect_garbage(root: Path, delete: bool, remote: bool = False) -> list[GcReport]:
    """What is unneeded in the cache, and with `remote` in the default remote; with `delete` it is gone afterwards.

    To be called with the project locked (tasks.system.locks.exclusive_lock).
    ProjectError when any revision cannot be read: nothing is deleted then.
    """
    keepers, named_hashes = _gc_roots(root)
    # A control's workspace has its own dvc.yaml and git, which DVC in this project does not look at.
    named_hashes |= {hash_ for copy in workspaces(root) for hash_ in _used_by(copy)}
    origins = _origins(root, read_graph(root))
    with open_repo(root) as repo:
        # What DVC's three "all" leave out: a HEAD that no branch has, and experiments that still wait in the queue.
        commits = sorted({commit for _, commit in keepers if commit})
        # force: a folder whose listing is gone from the cache keeps no file, where DVC would ask at a terminal, or give up without one.
        reachable = repo.used_objs(all_branches=True, all_tags=True, all_experiments=True, revs=commits or None, force=True)
        used = named_hashes | {info.value for infos in reachable.values() for info in infos}
        used |= set(_inside(repo, used))  # dvc.lock names a folder by its listing alone; the files in it are objects, too
        origin_by_hash = _with_contents(repo, origins)
        unlisted = tuple(sorted(md5 for md5 in used if md5.endswith(".dir") and not repo.cache.local.exists(md5)))
        reports = []
        for where, stores in {"cache": _caches(repo), **({"remote": _remotes(repo)} if remote else {})}.items():
            unneeded = [
                UnreferencedObject(hash_, _size(odb, hash_), *origin_by_hash.get(hash_, ("", "")))
                for odb in stores
                for hash_ in odb.all()
                if hash_ not in used
            ]
            unneeded.sort(key=lambda entry: (-entry.size, entry.path, entry.hash))
            reports.append(GcReport(where, tuple(keeper for keeper, _ in keepers), tuple(unneeded), unlisted))
            for odb in stores if delete else ():
                delete_unused(odb, used)
    return reports


def _gc_roots(root: Path) -> tuple[list[tuple[GcRoot, str]], set[str]]:
    """Every keeper with its commit ('' for a folder), and the hashes of all outputs in their dvc.lock files."""
    keepers: list[tuple[GcRoot, str]] = []
    named_hashes: set[str] = set()

    def add(kind: str, name: str, commit: str, stages: dict[str, Entry]) -> None:
        outs = {out["md5"]: out.get("size") or 0 for stage in stages.values() for out in stage.get("outs") or [] if out.get("md5")}
        named_hashes.update(outs)
        keepers.append((GcRoot(kind, name, len(outs), sum(outs.values())), commit))

    add("workspace", ".", "", read_lock(root))
    if head := resolve(root, "HEAD"):
        add("commit", "HEAD", head, locked_stages(root, head) or {})
    for place, kind in KINDS.items():
        for commit, ref in references(root, place):
            if kind != "tag" or not ref.startswith(PROMOTED):  # a promotion is a tag, too, and is counted as a promotion
                add(
                    kind, ref.split("/")[-1] if kind == "experiment" else ref.removeprefix(place), commit, locked_stages(root, commit) or {}
                )
    for experiment in queued(root):
        add("queued experiment", experiment.name, experiment.rev, locked_stages(root, experiment.rev) or {})
    for copy in workspaces(root):
        add("workspace", str(copy.relative_to(root)), "", read_lock(copy))
    return keepers, named_hashes


def _used_by(copy: Path) -> Iterator[str]:
    with open_repo(copy) as repo:
        for infos in repo.used_objs(force=True).values():
            yield from (info.value for info in infos)


def _caches(repo: Any) -> list[Any]:
    # Several schemes may share one cache, which would then be listed, and its objects counted, several times.
    caches = {id(odb): odb for _, odb in repo.cache.by_scheme() if odb}
    return list(caches.values())


def _remotes(repo: Any) -> list[Any]:
    if not repo.config["core"].get("remote"):
        raise ProjectError("--remote: the project has no default remote; set one with: dvc remote default NAME")
    # md5-dos2unix: where DVC 2 kept objects.
    return [repo.cloud.get_remote_odb(None, "gc", hash_name=name) for name in ("md5", "md5-dos2unix")]


def _inside(repo: Any, hashes: Iterable[str]) -> Iterator[str]:
    """The hashes of the files in those of `hashes` that are folders."""
    for hash_ in hashes:
        if hash_.endswith(".dir"):
            yield from (entry["md5"] for entry in _folder(repo, hash_))


def _folder(repo: Any, hash_: str) -> list[dict[str, str]]:
    try:
        entries: list[dict[str, str]] = json.loads(Path(repo.cache.local.oid_to_path(hash_)).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return entries


def _origins(root: Path, graph: Graph) -> dict[str, tuple[str, str]]:
    """hash -> (stage, path) of every output in DVC's run cache."""
    with open_repo(root) as repo:
        files = sorted(Path(repo.stage_cache.cache_dir).glob("*/*/*"))
    origins: dict[str, tuple[str, str]] = {}
    for file in files:
        try:
            entry = parse(file.read_text(encoding="utf-8"), str(file))
            outs = [(str(out["md5"]), str(out["path"])) for out in entry["outs"]]
        except (ProjectError, OSError, UnicodeDecodeError, KeyError, TypeError):
            continue  # DVC drops a broken entry by itself; it only tells names here
        for hash_, path in outs:
            producer = graph.producer(path)
            origins[hash_] = (producer.name if producer else "", path)
    return origins


def _with_contents(repo: Any, origins: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    contents: dict[str, tuple[str, str]] = {}
    for hash_, (stage, path) in origins.items():
        if hash_.endswith(".dir"):
            contents |= {entry["md5"]: (stage, f"{path}/{entry['relpath']}") for entry in _folder(repo, hash_)}
    return contents | origins  # an object that is both an output and a file in a folder goes by the output


def _size(odb: Any, hash_: str) -> int:
    return int(odb.fs.size(odb.oid_to_path(hash_)) or 0)
