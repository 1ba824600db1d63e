"""The MD5 of a file or folder as DVC counts it, so that what a stage recorded can be compared with dvc.lock."""

import hashlib
import json
from pathlib import Path


def content_md5(path: Path) -> str:
    """Of a file the MD5 of its bytes; of a folder that of its listing, followed by ".dir"."""
    if not path.is_dir():
        return _file_md5(path)
    files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    listing = [{"md5": _file_md5(path / name), "relpath": name} for name in files]
    # The layout of the JSON is DVC's (dvc_data.hashfile.tree): another one gives another hash.
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _file_md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
