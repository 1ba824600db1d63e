"""Files that are parts of one table: read one after the other as if they were one."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import polars as pl

from stages.ingest.readers.raw import RawFile
from stages.ingest.readers.validate import NothingRead
from stages.shared.core.errors import StageError

Take = Callable[[pl.DataFrame], None]


def shown_name(file: str) -> str:
    """Without its folders, but for a pattern, whose folder says what it is."""
    return file if "*" in file else Path(file).name


def parts_of(folder: Path, file: str) -> list[Path]:
    """The file, or those of a pattern by name, without what programs put beside their parts (_SUCCESS)."""
    if "*" not in file:
        path = folder / file
        if path.is_dir():
            inside = next((part.suffix for part in sorted(path.iterdir()) if part.suffix), ".csv")
            raise StageError(
                f"{path}: a folder, not a file; put its parts together, and name that file, or name the parts: {file}/*{inside}"
            )
        return [path]
    found = sorted(path for path in folder.glob(file) if path.is_file() and not path.name.startswith((".", "_")))
    if not found:
        raise StageError(f"{folder / file}: no file of such a name; ingest.table must name files in ingest.folder")
    return found


def read_parts(folder: Path, file: str, read: Callable[[Path, Take], RawFile], take: Take) -> RawFile:
    """`read` of each part; rows count on from part to part. A part may be empty, but not all."""
    parts, empty = [], None
    before = last = 0

    def take_on(rows: pl.DataFrame) -> None:
        nonlocal last
        last = max(last, before + (rows.select(pl.col("row").max()).item() or 0))
        take(rows.with_columns(pl.col("row") + before) if before else rows)

    for path in parts_of(folder, file):
        before = last
        try:
            parts.append(read(path, take_on))
        except NothingRead as error:
            empty = error
    if empty and not parts:
        raise empty
    if "*" not in file:
        return parts[0]
    listed = "".join(f"{part.sha256}  {part.name}\n" for part in parts)
    return RawFile(file, sha256(listed.encode()).hexdigest(), sum(part.size for part in parts), parts[0].encoding, tuple(parts))
