"""Text files whose lines are more than cells: the caller takes each line apart itself."""

from collections.abc import Callable

import polars as pl

from stages.ingest.readers.chunks import Input, Lines, line_table
from stages.ingest.readers.raw import RawFile
from stages.ingest.readers.validate import nothing_read


def read_lines(source: Input, take: Callable[[pl.DataFrame], None]) -> RawFile:
    """Calls `take` with one frame a block, as line_table has it. StageError for a file of blank lines."""
    lines = Lines(source)
    empty = True
    for part in lines:
        table = line_table(part)
        if table.height:
            empty = False
            take(table)
    if empty:
        raise nothing_read(lines.name)
    return lines.file
