"""Asks the publisher of a file without a checksum whether it has a newer version than the one in the cache, and downloads that."""

import os
import urllib.request
from dataclasses import replace
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path

from stages.fetch.download import download_all
from stages.shared.core.progress import note
from stages.shared.sources.published import PublishedFile

TIMEOUT = 60.0  # seconds
_UNREACHABLE = (OSError, HTTPException)


def update_download(file: PublishedFile, folder: Path) -> None:
    """Does nothing when `folder` does not hold the file yet. A publisher that cannot be reached is a line of output, no error."""
    path = folder / file.name
    if not path.exists():
        return
    try:
        size, modified = _published(file)
    except _UNREACHABLE as error:
        note(f"{file.url} could not be asked ({error}); the file in {folder} is taken")
        return
    newer = modified is not None and modified > path.stat().st_mtime
    if newer or size not in (None, path.stat().st_size):
        note(f"{file.url} has a newer version")
        _download_again(replace(file, size=size), path)


def _published(file: PublishedFile) -> tuple[int | None, float | None]:
    """Size in bytes and time of the last change (seconds since 1970), where the server gives them."""
    request = urllib.request.Request(file.url, method="HEAD", headers={"User-Agent": "gr2-pipeline", "Accept-Encoding": "identity"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        length, modified = answer.headers.get("Content-Length", ""), answer.headers.get("Last-Modified")
    try:
        changed = parsedate_to_datetime(modified).timestamp() if modified else None
    except ValueError:
        changed = None
    return int(length) if length.isdigit() else None, changed


def _download_again(file: PublishedFile, path: Path) -> None:
    """The old file is moved aside, and moved back when the new one does not come."""
    old_path = path.with_name(f".{path.name}.old")
    os.replace(path, old_path)
    try:
        download_all([file], path.parent)
    finally:
        if not path.exists():
            os.replace(old_path, path)
    old_path.unlink(missing_ok=True)
