"""Downloads into the cache that go on where they broke off, even after the process was killed, and are moved in place only when whole.

Beside `.NAME.part` stands `.NAME.part.json` with what the server said of the file (address, ETag, Last-Modified, size). A later run
asks for the rest on the condition (If-Range) that the file is still the same; else, or where the server sends neither, it starts anew.
"""

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

from filelock import FileLock

from stages.shared.core.errors import StageError
from stages.shared.core.progress import Progress, note
from stages.shared.sources.published import PublishedFile, verify_download

ATTEMPTS = 5  # without a byte of progress
PAUSE = 1.0  # seconds before the second attempt; doubles
TIMEOUT = 60.0  # seconds without a byte
_CHUNK = 2**18
_BROKEN = (ConnectionError, TimeoutError, http.client.HTTPException, ssl.SSLError)


@dataclass(frozen=True)
class ResumeState:
    """Which version of a file the bytes of a `.part` belong to."""

    url: str
    etag: str
    modified: str
    size: int | None

    def condition(self) -> str:
        """For If-Range; a weak ETag does not promise equal bytes."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


def download_all(files: Sequence[PublishedFile], folder: Path) -> list[Path]:
    """The files in `folder`, downloaded where they are missing or not what the publisher gives."""
    missing = [published for published in files if verify_download(folder / published.name, published)]
    for published in missing:
        _complete(published, folder, missing)
    return [folder / published.name for published in files]


def _complete(published: PublishedFile, folder: Path, missing: Sequence[PublishedFile]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / published.name, folder / f".{published.name}.part"
    # On flock, which the system releases when the process dies; a lock by a file's existence would outlive a kill.
    with FileLock(folder / f".{published.name}.lock", fallback_to_soft=False, mode=0o644):
        if not verify_download(path, published):  # another process was faster
            return
        note(f"fetching {published} into {folder}")
        for _ in range(2):
            resumed = _download(published, part, missing)
            wrong = verify_download(part, published)
            if not wrong:
                os.replace(part, path)
                _state_path(part).unlink(missing_ok=True)
                return
            _discard(part)
            if not resumed:
                break  # else the old beginning may be to blame: once more from the start
    raise StageError(f"{published.url}: what came {wrong}; the server has another file. {_by_hand(missing, folder)}")


def _download(published: PublishedFile, part: Path, missing: Sequence[PublishedFile]) -> bool:
    """Fills `part`; whether some of it was there before. StageError when the server cannot be reached or does not have the file."""
    resumed = _length(part) > 0
    farthest, failures, answered = _length(part), 0, False
    while failures < ATTEMPTS:
        if failures:
            time.sleep(PAUSE * 2 ** (failures - 1))
        why: object = "the connection ended early"
        try:
            if _request_rest(published, part):
                return resumed
            answered = True
        except HTTPError as error:
            if error.code < 500 and error.code not in (408, 416, 429):
                raise StageError(f"{published.url}: {error}. {_by_hand(missing, part.parent)}") from None
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
    raise StageError(
        f"{published.url}: could not be fetched ({why}). Run again to go on where it broke off. {_by_hand(missing, part.parent)}"
    )


def _request_rest(published: PublishedFile, part: Path) -> bool:
    """One request: for the rest of `part` where that is possible. Whether `part` is whole now."""
    state, start = _read_state(part, published.url), _length(part)
    if state is None or not state.condition() or not start or (state.size is not None and start > state.size):
        _discard(part)
        state, start = None, 0
    elif start == state.size:
        return True
    headers = {"User-Agent": "gr2-pipeline", "Accept-Encoding": "identity"}
    if state:
        headers |= {"Range": f"bytes={start}-", "If-Range": state.condition()}
    with urllib.request.urlopen(urllib.request.Request(published.url, headers=headers), timeout=TIMEOUT) as answer:
        if answer.status == 206 and state:
            if answer.headers.get("Content-Range", "") != f"bytes {start}-{(state.size or 0) - 1}/{state.size}":
                _discard(part)
                return False
        else:  # the whole file: no ranges here, or the file has changed
            length = answer.headers.get("Content-Length", "")
            state, start = (
                ResumeState(
                    published.url,
                    answer.headers.get("ETag", ""),
                    answer.headers.get("Last-Modified", ""),
                    int(length) if length.isdigit() else None,
                ),
                0,
            )
            _discard(part)
            _write_state(part, state)
        with part.open("ab") as file, Progress(published.name, state.size, start, unit="B") as bar:
            while chunk := answer.read1(_CHUNK):
                file.write(chunk)
                file.flush()  # what has come outlives the process
                bar.add(len(chunk))
    return state.size is None or _length(part) == state.size


def _by_hand(missing: Sequence[PublishedFile], folder: Path) -> str:
    files = "; ".join(str(published) for published in missing if verify_download(folder / published.name, published))
    return f"Without a network, put into {folder}: {files}; or set ingest.folder to the folder where the files lie"


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _state_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_state(part: Path, url: str) -> ResumeState | None:
    try:
        state = ResumeState(**json.loads(_state_path(part).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return state if state.url == url else None


def _write_state(part: Path, state: ResumeState) -> None:
    """Whole or not at all, and before the first byte of `part`: bytes without their state are thrown away."""
    staged = part.with_name(f"{part.name}.json.new")
    staged.write_text(json.dumps(asdict(state)), encoding="utf-8")
    os.replace(staged, _state_path(part))


def _discard(part: Path) -> None:
    """The bytes first: a state alone does no harm, bytes under the state of another version do."""
    part.unlink(missing_ok=True)
    _state_path(part).unlink(missing_ok=True)
