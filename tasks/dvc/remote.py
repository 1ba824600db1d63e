"""Outputs through the DVC remote: what a stage made somewhere is brought here instead of made again, and the other way round.

DVC's own `repro --pull` and `push --run-cache` copy the whole run cache each time; here one entry goes with one stage.
Whatever comes from the remote is hashed on arrival (DVC trusts remotes): an upload that was cut short is found, removed and made anew.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.dvc.cache import drop_damaged_of
from tasks.dvc.repo import opened
from tasks.project.graph import Stage
from tasks.system.errors import ProjectError


class RemoteTrouble(ProjectError):
    """The remote could not be reached, or did not take what it was sent: may well work later."""


def default_remote(root: Path) -> str:
    """The name of DVC's default remote; empty without one."""
    with opened(root) as repo:
        return str(repo.config["core"].get("remote") or "")


def run_key(root: Path, stage: Stage) -> str:
    """DVC's name of a run of `stage` on the code, parameters and inputs at hand: equal everywhere. ProjectError when a dep is missing."""
    with opened(root) as repo:
        return _key(_keyed(repo, stage))


def fetch(root: Path, stage: Stage) -> str:
    """Brings the outputs that a run of `stage` on these very inputs gave elsewhere into the local cache, with DVC's record of that run.

    `dvc repro` then restores them without running. Returns "cache" when all was here, "remote" when something came from there, and
    nothing when nobody has run it, or its outputs are damaged or gone. What is in the cache is hashed, and dropped if it is damaged.
    RemoteTrouble when the remote cannot be asked.
    """
    with opened(root) as repo, _talking(repo):
        if recorded := _fetch_recorded(repo, _stage(repo, stage)):
            return recorded
        found = _keyed(repo, stage)
        entry = repo.stage_cache._load(found) or _fetch_entry(repo, found)
        return _fetch_outs(repo, repo.stage_cache._create_stage(entry, wdir=found.wdir)) if entry else ""


def pull(root: Path, paths: Iterable[str]) -> None:
    """Puts `paths`, which dvc.lock records, into the workspace, from the cache or the remote. RemoteTrouble for what cannot be had."""
    paths = list(paths)
    with opened(root) as repo, _talking(repo) as remote:
        outs = [out for path in paths for out in repo.index.outs if _covers(out.def_path, path)]
        from dvc.exceptions import CheckoutError

        if not outs:
            return  # DVC takes no targets for all
        drop_damaged_of(outs, root)
        for out in outs:
            if not out.hash_info or out.changed_cache():
                _fetch_objects(repo, out)
        try:
            repo.checkout(targets=list(dict.fromkeys(out.def_path for out in outs)), force=True)
        except CheckoutError as error:
            raise RemoteTrouble(f"the remote '{remote}' does not hold {', '.join(error.target_infos)}, which dvc.lock records") from None


def push(root: Path, stage: Stage) -> None:
    """Sends the outputs of `stage` to the remote, and after them DVC's record of the run, so that no record speaks of what is not there."""
    with opened(root) as repo, _talking(repo) as remote:
        found = _stage(repo, stage)
        for odb, objects in found.get_used_objs().items():
            result = repo.cloud.push(objects, odb=odb)
            if result.failed:
                raise RemoteTrouble(f"the remote '{remote}' did not take {len(result.failed)} objects of '{stage.name}'")
        key = _key(found)
        here = Path(repo.stage_cache._get_cache_dir(key))
        odb, folder = _runs(repo, key)
        for path in sorted(here.iterdir()) if here.is_dir() else ():
            odb.fs.makedirs(folder, exist_ok=True)
            odb.fs.put_file(str(path), odb.fs.join(folder, path.name))


@contextmanager
def _talking(repo: Any) -> Iterator[str]:
    """Gives the default remote's name. Errors of its protocol (S3, SSH, a mount that went) come out as RemoteTrouble."""
    from dvc.exceptions import DvcException

    name = repo.config["core"].get("remote")
    if not name:
        raise ProjectError("DVC has no default remote; nodes exchange outputs through one: dvc remote add --default NAME URL")
    repo.config["remote"][name]["verify"] = True
    try:
        yield str(name)
    except (ProjectError, DvcException):
        raise
    except Exception as error:  # every protocol's library has errors of its own
        if not _of_transport(error):
            raise
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RemoteTrouble(f"the DVC remote '{name}' failed: {said}") from error


def _of_transport(error: BaseException) -> bool:
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in (
        "botocore",
        "aiobotocore",
        "s3fs",
        "aiohttp",
        "fsspec",
        "asyncssh",
    )


def _stage(repo: Any, stage: Stage) -> Any:
    return next(found for found in repo.index.stages if getattr(found, "name", None) == stage.name)


def _keyed(repo: Any, stage: Stage) -> Any:
    """The stage with its deps hashed as they stand in the workspace."""
    found = _stage(repo, stage)
    found.save_deps()
    return found


def _key(found: Any) -> str:
    from dvc.stage.cache import _can_hash, _get_stage_hash

    if not _can_hash(found):
        raise ProjectError(
            f"dvc.yaml: stages.{found.name}: DVC keeps no run cache of it (it needs deps and outs in the project, none persistent)"
        )
    return str(_get_stage_hash(found))


def _fetch_recorded(repo: Any, found: Any) -> str:
    """When dvc.lock already says what the outputs are, they are put into the workspace; a plain `dvc push` suffices for that."""
    if found.changed_stage() or found.changed_deps() or not all(out.hash_info for out in found.outs):
        return ""
    source = _fetch_outs(repo, found)
    if source:
        repo.checkout(targets=[found.addressing], force=True)
    return source


def _fetch_outs(repo: Any, found: Any) -> str:
    drop_damaged_of(found.outs, Path(repo.root_dir))  # else DVC would take it for there, and then run the stage
    if found.outs_cached():
        return "cache"
    _fetch_objects(repo, found)
    return "remote" if found.outs_cached() else ""


def _runs(repo: Any, key: str) -> tuple[Any, str]:
    odb = repo.cloud.get_remote_odb(None, "fetch --run-cache", hash_name="md5-dos2unix")
    return odb, odb.fs.join(odb.path, "runs", key[:2], key)


def _fetch_entry(repo: Any, found: Any) -> Any:
    key = _key(found)
    odb, folder = _runs(repo, key)
    if not odb.fs.exists(folder):
        return None
    into = Path(repo.stage_cache._get_cache_dir(key))
    into.mkdir(parents=True, exist_ok=True)
    for path in odb.fs.find(folder):
        beside = into / f".{odb.fs.name(path)}.partial"
        odb.fs.get_file(path, str(beside))
        beside.replace(into / odb.fs.name(path))
    return repo.stage_cache._load(found)  # drops an entry that cannot be read


def _fetch_objects(repo: Any, holder: Any) -> None:
    """Fetches what the stage or out `holder` uses; what is damaged or gone there is cleared away, for a later push to mend."""
    from dvc.output import CollectCacheError

    try:
        used = holder.get_used_objs()
    except CollectCacheError:  # a folder's listing is neither here nor, whole, there
        listings = [out.hash_info for out in getattr(holder, "outs", [holder]) if out.hash_info and out.hash_info.isdir]
        missing = [info for info in listings if not repo.cache.local.exists(info.value)]
        if missing:
            _clear(repo.cache.local, repo.cloud.get_remote_odb(None, "pull", hash_name=missing[0].name), (), missing)
        return
    for odb, objects in used.items():
        repo.cloud.pull(objects, odb=odb)
        if missing := [info for info in objects if not repo.cache.local.exists(info.value)]:  # DVC drops the damaged without a word
            _clear(repo.cache.local, odb or repo.cloud.get_remote_odb(None, "pull", hash_name=missing[0].name), objects, missing)


def _clear(cache: Any, remote: Any, objects: Iterable[Any], missing: list[Any]) -> None:
    """Removes damaged objects from the remote, and the listings of folders that name a lost one: DVC takes a listing at the remote
    for proof that all of the folder is there, and would never send the rest again."""
    from dvc_data.hashfile.db import get_index
    from dvc_data.hashfile.hash import file_md5

    lost = set()
    for info in missing:
        path = remote.oid_to_path(info.value)
        if not remote.fs.exists(path):
            lost.add(info.value)
        elif file_md5(path, remote.fs) != info.value.removesuffix(".dir"):
            remote.fs.remove(path)
            lost.add(info.value)
    for info in objects:
        if info.isdir and cache.exists(info.value):
            listing = json.loads(Path(cache.oid_to_path(info.value)).read_text(encoding="utf-8"))
            path = remote.oid_to_path(info.value)
            if lost.intersection(entry["md5"] for entry in listing) and remote.fs.exists(path):
                remote.fs.remove(path)
    get_index(remote).clear()  # what DVC remembers of the remote


def _covers(out: str, path: str) -> bool:
    return out == path or path.startswith(out + "/") or out.startswith(path.rstrip("/") + "/")
