"""The files of the folders that a stage reads, as they are now: code packages, raw data, models given by path."""

from collections.abc import Mapping
from pathlib import Path

from tasks.dvc.dir_listing import Listing, cached_listing, listing_hash
from tasks.dvc.repo import named_stage, open_repo


def dep_listings(root: Path, stage: str, hashes: Mapping[str, str]) -> dict[str, Listing]:
    """path -> files of those folders of `hashes` (path -> md5 of a dep in dvc.lock) that DVC's cache cannot list: no stage made them.

    A folder that has changed since, and is not what its md5 says, is left out.
    """
    folders = {path: md5 for path, md5 in hashes.items() if md5.endswith(".dir") and cached_listing(root, md5) is None}
    if not folders:
        return {}
    from tasks.dvc.internals import folder_listing  # loads DVC, which takes 0.2 s and more

    with open_repo(root) as repo:
        deps = {dep.def_path: dep for dep in named_stage(repo, stage).deps}
        present = {path: deps[path] for path in folders if path in deps and deps[path].fs.isdir(deps[path].fs_path)}
        listings = {path: folder_listing(dep) for path, dep in present.items()}
    return {path: listing for path, listing in listings.items() if listing_hash(listing) == folders[path]}
