"""The files of the folders that a stage reads, as they are now: code packages, raw data, models given by path."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from tasks.dvc.dir_listing import Listing, cached_listing, listing_hash
from tasks.dvc.repo import open_repo
from tasks.system.errors import ProjectError


def dep_listings(root: Path, stage: str, hashes: Mapping[str, str]) -> dict[str, Listing]:
    """path -> files of those folders of `hashes` (path -> md5 of a dep in dvc.lock) that DVC's cache cannot list: no stage made them.

    A folder that has changed since, and is not what its md5 says, is left out.
    """
    folders = {path: md5 for path, md5 in hashes.items() if md5.endswith(".dir") and cached_listing(root, md5) is None}
    listings = current_listings(root, stage, folders) if folders else {}
    # The folder is read after the run. If someone has edited it meanwhile, its files are not those that the stage read.
    return {path: listing for path, listing in listings.items() if listing_hash(listing) == folders[path]}


def current_listings(root: Path, stage: str, paths: Iterable[str]) -> dict[str, Listing]:
    """path -> files of those `paths` that are folders now and deps of `stage` in dvc.yaml; empty where DVC cannot read the project."""
    from tasks.dvc.internals import folder_listing  # loads DVC, which takes 0.2 s and more

    try:
        with open_repo(root) as repo:
            # A forged dvc.lock may name a stage that does not exist, so it is looked for and not taken for granted.
            deps = {
                dep.def_path: dep for dvc_stage in repo.index.stages if getattr(dvc_stage, "name", None) == stage for dep in dvc_stage.deps
            }
            return {path: folder_listing(deps[path]) for path in paths if path in deps and deps[path].fs.isdir(deps[path].fs_path)}
    except ProjectError:  # a forged dvc.lock may break DVC's schema; --verify, which asks here, reports that itself
        return {}
