"""KuaiRec (Gao et al., CIKM 2022): who watched which video for how long; out of KuaiRec.zip or its unpacked files."""

import zipfile
from pathlib import Path

import polars as pl

from stages.ingest.readers.chunks import Input
from stages.ingest.readers.delimited import Columns, read_delimited
from stages.ingest.readers.raw import RawFile
from stages.ingest.readers.validate import StagingTables
from stages.shared.core.errors import StageError

ARCHIVE = "KuaiRec.zip"
# The small matrix is nearly full (each of its users was shown each of its videos) and lacks some times; the big one is a log.
LOGS = ("big_matrix.csv", "small_matrix.csv")
VIDEOS = "kuairec_caption_category.csv"
_UNKNOWN = "UNKNOWN"  # what stands where a video has no caption or no category
_LEVELS = ("first", "second", "third")


def find(folder: Path) -> tuple[Input, Input]:
    """The log and the videos: files of `folder`, else members of the archive in it."""
    for log in LOGS:
        if (folder / log).is_file():
            return Input(folder / log), Input(folder / VIDEOS)
    if not (archive := folder / ARCHIVE).is_file():
        raise StageError(f"{folder}: needs {LOGS[0]} (or {LOGS[1]}) and {VIDEOS}, or {ARCHIVE}; put them there")
    with zipfile.ZipFile(archive) as file:
        members = {Path(name).name: name for name in file.namelist() if not name.startswith("__MACOSX")}
    return Input(archive, members.get(LOGS[0], LOGS[0])), Input(archive, members.get(VIDEOS, VIDEOS))


def has_files(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (*LOGS, ARCHIVE))


def read_log(source: Input, scratch: StagingTables) -> RawFile:
    """The rating is the watch ratio: time played by length of the video; 2 means that it was watched twice."""
    names: dict[str, tuple[str, ...]] = {
        "user": ("user_id",),
        "item": ("video_id",),
        "timestamp": ("timestamp",),
        "rating": ("watch_ratio",),
    }
    columns = Columns(names)
    return read_delimited(source, ",", columns, lambda rows: scratch.add_interactions(source.name, rows), quoted=True, numbers_in="s")


def read_videos(source: Input, scratch: StagingTables) -> RawFile:
    """The title is the caption, else the text on the cover, else the id."""
    levels: dict[str, tuple[str, ...]] = {level: (f"{level}_level_category_name",) for level in _LEVELS}
    names = {"source_id": ("video_id",), "title": ("caption",), "cover": ("manual_cover_text",), **levels}

    def take(rows: pl.DataFrame) -> None:
        known = [_known(name) for name in ("title", "cover")]
        title = pl.coalesce(*known, pl.format("Video {}", pl.col("source_id").str.strip_chars()))
        categories = pl.concat_list([_known(level) for level in _LEVELS]).list.drop_nulls()
        scratch.add_items(source.name, rows.with_columns(title=title, year=pl.lit(""), brand=pl.lit(""), categories=categories))

    return read_delimited(source, ",", Columns(names), take, quoted=True)


def _known(name: str) -> pl.Expr:
    text = pl.col(name).str.strip_chars()
    return pl.when((text != "") & (text != _UNKNOWN)).then(text)
