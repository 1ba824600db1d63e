"""SHA-256 of files, read in pieces."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def file_sha256(path: Path) -> str:
    return _digest(path).hex()


def files_sha256(paths: Iterable[Path]) -> str:
    """One hash over several files, in the order given."""
    return hashlib.sha256(b"".join(map(_digest, paths))).hexdigest()


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
