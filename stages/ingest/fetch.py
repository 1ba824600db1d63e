"""Downloads into the cache that go on where they broke off, even after the process was killed, and are moved in place only when whole.

Beside `.NAME.part` stands `.NAME.part.json` with what the server said of the file (address, ETag, Last-Modified, size). A later run
asks for the rest on the condition (If-Range) that the file is still the same; else, or where the server sends no such mark, it starts anew.
"""

import fcntl
import hashlib
import http.client
import json
import os
import ssl
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError

from tqdm import tqdm

from stages.shared.core.errors import StageError

ATTEMPTS = 5  # without a byte of progress
PAUSE = 1.0  # seconds before the second attempt; doubles
TIMEOUT = 60.0  # seconds without a byte
_CHUNK = 2**18
_BROKEN = (ConnectionError, TimeoutError, http.client.HTTPException, ssl.SSLError)


@dataclass(frozen=True)
class Remote:
    """A file at an official address; size (bytes) and md5 where the publisher gives them."""

    url: str
    size: int | None = None
    md5: str = ""

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def __str__(self) -> str:
        size = f"{self.size:,} bytes" if self.size else "no size is published"
        return f"{self.url} ({size}, {f'md5 {self.md5}' if self.md5 else 'no checksum is published'})"


@dataclass(frozen=True)
class _Mark:
    """Which version of a file the bytes of a `.part` belong to."""

    url: str
    etag: str
    modified: str
    size: int | None

    def condition(self) -> str:
        """For If-Range; a weak ETag does not promise equal bytes."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


def fetch_all(remotes: Sequence[Remote], folder: Path) -> list[Path]:
    """The files in `folder`, downloaded where they are missing or not what the publisher gives."""
    missing = [remote for remote in remotes if fault(folder / remote.name, remote)]
    for remote in missing:
        _fetch(remote, folder, missing)
    return [folder / remote.name for remote in remotes]


def fault(path: Path, remote: Remote) -> str:
    """What is wrong with the file at `path`, "" if nothing that can be told."""
    if not path.exists():
        return "is missing"
    if remote.size and path.stat().st_size != remote.size:
        return f"has {path.stat().st_size:,} bytes, published are {remote.size:,}"
    if remote.md5:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != remote.md5:
            return f"has md5 {found}, published is {remote.md5}"
    return ""


def _fetch(remote: Remote, folder: Path, missing: Sequence[Remote]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / remote.name, folder / f".{remote.name}.part"
    with (folder / f".{remote.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system lets go of it when the process dies
        if not fault(path, remote):  # another process was faster
            return
        print(f"fetching {remote} into {folder}", flush=True)
        for _ in range(2):
            resumed = _download(remote, part, missing)
            wrong = fault(part, remote)
            if not wrong:
                os.replace(part, path)
                _mark_path(part).unlink(missing_ok=True)
                return
            _discard(part)
            if not resumed:
                break  # else the old beginning may be to blame: once more from the start
    raise StageError(f"{remote.url}: what came {wrong}; the server has another file. {_by_hand(missing, folder)}")


def _download(remote: Remote, part: Path, missing: Sequence[Remote]) -> bool:
    """Fills `part`; whether some of it was there before. StageError when the server cannot be reached or does not have the file."""
    resumed = _length(part) > 0
    farthest, failures, answered = _length(part), 0, False
    while failures < ATTEMPTS:
        if failures:
            time.sleep(PAUSE * 2 ** (failures - 1))
        why: object = "the connection ended early"
        try:
            if _go_on(remote, part):
                return resumed
            answered = True
        except HTTPError as error:
            if error.code < 500 and error.code not in (408, 416, 429):
                raise StageError(f"{remote.url}: {error}. {_by_hand(missing, part.parent)}") from None
            if error.code == 416:  # the part is longer than the file
                _discard(part)
            why, answered = error, True
        except URLError as error:
            why = error.reason
            if not answered:
                break
        except _BROKEN as error:
            why, answered = error, True
        failures = 0 if _length(part) > farthest else failures + 1
        farthest = max(farthest, _length(part))
    raise StageError(f"{remote.url}: could not be fetched ({why}). Run again to go on where it broke off. {_by_hand(missing, part.parent)}")


def _go_on(remote: Remote, part: Path) -> bool:
    """One request: for the rest of `part` where that is possible. Whether `part` is whole now."""
    mark, start = _read_mark(part, remote.url), _length(part)
    if mark is None or not mark.condition() or not start or (mark.size is not None and start > mark.size):
        _discard(part)
        mark, start = None, 0
    elif start == mark.size:
        return True
    headers = {"User-Agent": "gr2-pipeline", "Accept-Encoding": "identity"}
    if mark:
        headers |= {"Range": f"bytes={start}-", "If-Range": mark.condition()}
    with urllib.request.urlopen(urllib.request.Request(remote.url, headers=headers), timeout=TIMEOUT) as answer:
        if answer.status == 206 and mark:
            if answer.headers.get("Content-Range", "") != f"bytes {start}-{(mark.size or 0) - 1}/{mark.size}":
                _discard(part)
                return False
        else:  # the whole file: no ranges here, or the file has changed
            length = answer.headers.get("Content-Length", "")
            mark, start = (
                _Mark(
                    remote.url,
                    answer.headers.get("ETag", ""),
                    answer.headers.get("Last-Modified", ""),
                    int(length) if length.isdigit() else None,
                ),
                0,
            )
            _discard(part)
            _write_mark(part, mark)
        with part.open("ab") as file, tqdm(total=mark.size, initial=start, desc=remote.name, unit="B", unit_scale=True, delay=3) as bar:
            while chunk := answer.read1(_CHUNK):
                file.write(chunk)
                file.flush()  # what has come outlives the process
                bar.update(len(chunk))
    return mark.size is None or _length(part) == mark.size


def _by_hand(missing: Sequence[Remote], folder: Path) -> str:
    files = "; ".join(str(remote) for remote in missing if fault(folder / remote.name, remote))
    return f"Without a network, put into {folder}: {files}; or set ingest.folder to the folder where the files lie"


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _mark_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_mark(part: Path, url: str) -> _Mark | None:
    try:
        mark = _Mark(**json.loads(_mark_path(part).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return mark if mark.url == url else None


def _write_mark(part: Path, mark: _Mark) -> None:
    """Whole or not at all, and before the first byte of `part`: bytes without their mark are thrown away."""
    staged = part.with_name(f"{part.name}.json.new")
    staged.write_text(json.dumps(asdict(mark)), encoding="utf-8")
    os.replace(staged, _mark_path(part))


def _discard(part: Path) -> None:
    """The bytes first: a mark alone does no harm, bytes under the mark of another version do."""
    part.unlink(missing_ok=True)
    _mark_path(part).unlink(missing_ok=True)
