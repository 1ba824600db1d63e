"""Files at official addresses, with the size and checksum that their publishers give."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

WHEEL = "recbole-1.2.1-py3-none-any.whl"  # it holds MovieLens-100K
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"


@dataclass(frozen=True)
class PublishedFile:
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


# Size and md5 as GroupLens publishes them beside each archive.
ARCHIVES = {
    "1m": PublishedFile("https://files.grouplens.org/datasets/movielens/ml-1m.zip", 5_917_549, "c4d9eecfca2ab87c1945afe126590906"),
    "10m": PublishedFile("https://files.grouplens.org/datasets/movielens/ml-10m.zip", 65_566_137, "ce571fd55effeba0271552578f2648bd"),
    "25m": PublishedFile("https://files.grouplens.org/datasets/movielens/ml-25m.zip", 261_978_986, "6b51fb2759a8657d3bfcbfc42b592ada"),
    "32m": PublishedFile("https://files.grouplens.org/datasets/movielens/ml-32m.zip", 238_950_008, "d472be332d4daa821edc399621853b57"),
}


def verify_download(path: Path, published: PublishedFile) -> str:
    """What is wrong with the file at `path`; empty when nothing that size and checksum can show."""
    if not path.exists():
        return "is missing"
    if published.size and path.stat().st_size != published.size:
        return f"has {path.stat().st_size:,} bytes, published are {published.size:,}"
    if published.md5:
        with path.open("rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
        if md5 != published.md5:
            return f"has md5 {md5}, published is {published.md5}"
    return ""
