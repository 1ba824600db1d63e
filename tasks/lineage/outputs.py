"""The outputs that dvc.lock records, read and hashed: in the workspace and in DVC's cache."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.dvc.dir_listing import Listing, cache_folder, file_md5, files_under, listing_hash, object_in
from tasks.dvc.repo import open_repo


@dataclass(frozen=True)
class Problem:
    """`kind`: record, lock, data or cache. `file`: from the root, with its line in the record; a git ref."""

    kind: str
    file: str
    what: str
    remedy: str


@dataclass(frozen=True)
class Out:
    stage: str
    path: str
    md5: str
    size: int | None
    cached: bool  # DVC keeps it in its cache


class OutputChecker:
    """Reads outputs and cache objects; `files` and `objects` count them."""

    def __init__(self, root: Path, outs: list[Out]):
        self.root, self.outs, self.cache = root, outs, cache_folder(root)
        self.files = self.objects = 0

    def output(self, out: Out) -> list[Problem]:
        location = self.root / out.path
        remedy = f"bring the recorded one back: dvc checkout --force {out.path}"
        if not location.exists():
            return [
                Problem("data", out.path, f"is missing; dvc.lock records {out.md5}", f"dvc checkout {out.path}, or gr2 run {out.stage}")
            ]
        if out.md5.endswith(".dir") != location.is_dir():
            return [Problem("data", out.path, f"is {'a folder' if location.is_dir() else 'a file'}; dvc.lock records {out.md5}", remedy)]
        if location.is_file():
            self.files += 1
            actual_md5, size = file_md5(location), location.stat().st_size
            if actual_md5 != out.md5:
                return [Problem("data", out.path, f"has md5 {actual_md5}; dvc.lock records {out.md5}", remedy)]
        else:
            names = files_under(location)
            self.files += len(names)
            files = {name: file_md5(location / name) for name in names}
            if listing_hash(files) != out.md5:
                return list(self._members(out, files, remedy))
            size = sum((location / name).stat().st_size for name in names)
        # The hash is right, so the file is: a wrong size is an edit of dvc.lock, and DVC compares hashes alone.
        if out.size not in (None, size):
            what = f"{out.stage}: {out.path} has {size} bytes and the hash recorded; its recorded size, {out.size}, is wrong"
            return [Problem("lock", "dvc.lock", what, "git checkout dvc.lock, or put the number right")]
        return []

    def object(self, md5: str, _: None = None) -> list[Problem]:
        """The problems of the cache object of an output and, for a folder, of the objects of its files."""
        listing = self._object(md5)
        if isinstance(listing, Problem):
            return [listing]
        members = [self._object(member_md5) for member_md5 in dict.fromkeys((listing or {}).values())]
        return [problem for problem in members if isinstance(problem, Problem)]

    def _members(self, out: Out, files: Listing, remedy: str) -> Iterator[Problem]:
        """A problem for each file of a folder that differs from the recorded one; `files`: md5 by name, as in the workspace."""
        recorded = self._object(out.md5) if out.cached else None
        if not isinstance(recorded, dict):
            what = (
                f"its files have the hash {listing_hash(files)}; dvc.lock records {out.md5} (which file differs, DVC's cache does not know)"
            )
            yield Problem("data", out.path, what, remedy)
            return
        ignored = self._ignored(out.path, [name for name in files if name not in recorded])
        for name in dict.fromkeys([*recorded, *files]):
            if name not in files:
                yield Problem("data", f"{out.path}/{name}", f"is missing; {out.path} is recorded with it (md5 {recorded[name]})", remedy)
            elif name not in recorded and name not in ignored:
                yield Problem("data", f"{out.path}/{name}", f"was put in: {out.path} is recorded without it", remedy)
            elif name in recorded and files[name] != recorded[name]:
                yield Problem("data", f"{out.path}/{name}", f"has md5 {files[name]}; {recorded[name]} is recorded", remedy)

    def _ignored(self, path: str, names: list[str]) -> set[str]:
        """Those that .dvcignore keeps out of DVC's hash."""
        if not names:
            return set()
        with open_repo(self.root) as repo:
            return {name for name in names if repo.dvcignore.is_ignored_file(str(self.root / path / name))}

    def _object(self, md5: str) -> Listing | Problem | None:
        """The listing in a folder's object, None for a file's object; a Problem when it is missing or its content has another md5."""
        location = object_in(self.cache, md5)
        name = str(location.relative_to(self.root)) if location.is_relative_to(self.root) else str(location)
        self.objects += 1
        try:
            text = location.read_bytes() if md5.endswith(".dir") else b""
            actual_md5 = hashlib.md5(text, usedforsecurity=False).hexdigest() + ".dir" if text else file_md5(location)
        except OSError:
            return Problem(
                "cache", name, f"is missing from DVC's cache, which should hold what dvc.lock records ({md5})", "dvc fetch, or dvc commit"
            )
        if actual_md5 != md5:
            return Problem("cache", name, f"has md5 {actual_md5} under the name of another", f"rm -f {name}, then dvc fetch or dvc commit")
        return {entry["relpath"]: entry["md5"] for entry in json.loads(text)} if text else None
