"""Outputs through the DVC remote: what a stage made somewhere is brought here instead of made again, and the other way round.

DVC's own `repro --pull` and `push --run-cache` copy the whole run cache each time; here one entry goes with one stage.
Whatever comes from the remote is hashed on arrival (DVC trusts remotes): an upload that was cut short is found, removed and made anew.
DVC's modules are imported inside the functions: they take 0.2 s and more to load.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.dvc.cache import drop_damaged_of
from tasks.dvc.repo import named_stage, open_repo
from tasks.project.graph import Stage
from tasks.system.errors import ProjectError


class RemoteUnavailable(ProjectError):
    """The remote could not be reached, or did not take what it was sent: may well work later."""


def fetch_object(repo: Any, md5: str) -> None:
    """Brings an object from the default remote into the cache of the open `repo`, if there is a remote that has it and answers."""
    from dvc_data.hashfile.hash_info import HashInfo

    from tasks.dvc.internals import DvcException

    if repo.config["core"].get("remote"):
        try:
            repo.cloud.pull([HashInfo("md5", md5)])
        except (DvcException, OSError):
            return  # the caller says that it is missing, and what to do


def run_key(root: Path, stage: Stage) -> str:
    """DVC's name of a run of `stage` on the code, parameters and inputs at hand: equal everywhere. ProjectError when a dep is missing."""
    with open_repo(root) as repo:
        return _run_key(_with_current_deps(repo, stage))


def fetch(root: Path, stage: Stage) -> str:
    """Brings the outputs that a run of `stage` on these very inputs gave elsewhere into the local cache, with DVC's record of that run.

    `dvc repro` then restores them without running. Returns "cache" when all was here, "remote" when something came from there, and
    nothing when nobody has run it, or its outputs are damaged or gone. What is in the cache is hashed, and dropped if it is damaged.
    RemoteUnavailable when the remote cannot be asked.
    """
    from tasks.dvc.internals import cached_run

    with open_repo(root) as repo, _translate_errors(repo):
        if source := _fetch_recorded(repo, named_stage(repo, stage.name)):
            return source
        dvc_stage = _with_current_deps(repo, stage)
        recorded = cached_run(repo, dvc_stage) or _fetch_run(repo, dvc_stage)
        return _fetch_outs(repo, recorded) if recorded else ""


def pull(root: Path, paths: Iterable[str]) -> None:
    """Puts `paths`, which dvc.lock records, into the workspace, from the cache or the remote. RemoteUnavailable for what cannot be had."""
    from tasks.dvc.internals import CheckoutError

    paths = list(paths)
    with open_repo(root) as repo, _translate_errors(repo) as remote:
        outs = [out for path in paths for out in repo.index.outs if _covers(out.def_path, path)]
        if not outs:
            return  # DVC takes no targets for all
        drop_damaged_of(outs, root)
        for out in outs:
            if not out.hash_info or out.changed_cache():
                _fetch_objects(repo, out)
        try:
            repo.checkout(targets=list(dict.fromkeys(out.def_path for out in outs)), force=True)
        except CheckoutError as error:
            raise RemoteUnavailable(
                f"the remote '{remote}' does not hold {', '.join(error.target_infos)}, which dvc.lock records"
            ) from None


def push(root: Path, stage: Stage) -> None:
    """Sends the outputs of `stage` to the remote, and after them DVC's record of the run, so that no record speaks of what is not there."""
    from tasks.dvc.internals import run_folder

    with open_repo(root) as repo, _translate_errors(repo) as remote:
        dvc_stage = named_stage(repo, stage.name)
        for odb, objects in dvc_stage.get_used_objs().items():
            result = repo.cloud.push(objects, odb=odb)
            if result.failed:
                raise RemoteUnavailable(f"the remote '{remote}' did not take {len(result.failed)} objects of '{stage.name}'")
        key = _run_key(dvc_stage)
        local = run_folder(repo, key)
        odb, folder = _remote_run_folder(repo, key)
        # The record goes last: whoever finds it may rely on the outputs being there.
        for path in sorted(path for path in local.iterdir() if not path.name.startswith(".")) if local.is_dir() else ():
            odb.fs.makedirs(folder, exist_ok=True)
            odb.fs.put_file(str(path), odb.fs.join(folder, path.name))


@contextmanager
def _translate_errors(repo: Any) -> Iterator[str]:
    """Gives the default remote's name. Errors of its protocol (S3, SSH, a mount that went) come out as RemoteUnavailable."""
    from tasks.dvc.internals import DvcException

    name = repo.config["core"].get("remote")
    if not name:
        raise ProjectError("DVC has no default remote; nodes exchange outputs through one: dvc remote add --default NAME URL")
    # DVC trusts what comes from a remote unless told otherwise; `verify` has it hash each object on arrival.
    repo.config["remote"][name]["verify"] = True
    try:
        yield str(name)
    except (ProjectError, DvcException):
        raise
    except Exception as error:  # every protocol's library has errors of its own
        if not _of_transport(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RemoteUnavailable(f"the DVC remote '{name}' failed: {reason}") from error


def _of_transport(error: BaseException) -> bool:
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in (
        "botocore",
        "aiobotocore",
        "s3fs",
        "aiohttp",
        "fsspec",
        "asyncssh",
    )


def _with_current_deps(repo: Any, stage: Stage) -> Any:
    """DVC's stage with its deps hashed as they are in the workspace now."""
    dvc_stage = named_stage(repo, stage.name)
    dvc_stage.save_deps()
    return dvc_stage


def _run_key(dvc_stage: Any) -> str:
    from tasks.dvc.internals import has_run_key, run_cache_key

    if not has_run_key(dvc_stage):
        raise ProjectError(
            f"dvc.yaml: stages.{dvc_stage.name}: DVC keeps no run cache of it (it needs deps and outs in the project, none persistent)"
        )
    return run_cache_key(dvc_stage)


def _fetch_recorded(repo: Any, dvc_stage: Any) -> str:
    """When dvc.lock already says what the outputs are, they are put into the workspace; a plain `dvc push` suffices for that."""
    if dvc_stage.changed_stage() or dvc_stage.changed_deps() or not all(out.hash_info for out in dvc_stage.outs):
        # DVC would restore an output only for the very inputs and parameters that dvc.lock names.
        return ""
    source = _fetch_outs(repo, dvc_stage)
    if source:
        repo.checkout(targets=[dvc_stage.addressing], force=True)
    return source


def _fetch_outs(repo: Any, dvc_stage: Any) -> str:
    drop_damaged_of(dvc_stage.outs, Path(repo.root_dir))  # else DVC would take a damaged object for present, and then run the stage
    if dvc_stage.outs_cached():
        return "cache"
    _fetch_objects(repo, dvc_stage)
    return "remote" if dvc_stage.outs_cached() else ""


def _remote_run_folder(repo: Any, key: str) -> tuple[Any, str]:
    # DVC 3 keeps run records where DVC 2 had them, so the scheme has the old name.
    odb = repo.cloud.get_remote_odb(None, "fetch --run-cache", hash_name="md5-dos2unix")
    return odb, odb.fs.join(odb.path, "runs", key[:2], key)


def _fetch_run(repo: Any, dvc_stage: Any) -> Any:
    """Fetches the records of equal runs; gives the stage as one of them has it, None where the remote has none."""
    from tasks.dvc.internals import cached_run, run_folder

    key = _run_key(dvc_stage)
    odb, folder = _remote_run_folder(repo, key)
    if not odb.fs.exists(folder):
        return None
    local = run_folder(repo, key)
    local.mkdir(parents=True, exist_ok=True)
    # Moved into place when all of it is here: cached_run drops what a kill leaves under the passing name.
    for path in odb.fs.find(folder):
        partial = local / f".{odb.fs.name(path)}.partial"
        odb.fs.get_file(path, str(partial))
        partial.replace(local / odb.fs.name(path))
    return cached_run(repo, dvc_stage)


def _fetch_objects(repo: Any, holder: Any) -> None:
    """Fetches what the stage or out `holder` uses; what is damaged or gone there is cleared away, for a later push to mend."""
    from tasks.dvc.internals import CollectCacheError

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
