"""MIND's impressions as slates: behaviors.tsv in its official layout (stages/shared/sources/mind.py). The publisher has shuffled the order
within each impression."""

import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from stages.retrieve.given.files import Row, logged_files, opened
from stages.retrieve.given.impression import Impression, Refused
from stages.shared.core.errors import StageError
from stages.shared.sources.mind import CLICKED, LOG, LOG_COLUMNS, PASSED, TIME


def read_mind(path: Path) -> Iterator[Row]:
    """Of behaviors.tsv itself, or of every file of that name in the folder `path` (MINDsmall_train, MINDsmall_dev, ...)."""
    for name, file in mind_files(path):
        try:
            with opened(file) as lines:
                for number, line in enumerate(lines, 1):
                    text = line.rstrip("\r\n")
                    try:
                        yield name, number, _impression(text.split("\t"))
                    except Refused as reason:
                        yield name, number, reason
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise StageError(f"{file}: cannot be read ({error}); fetch MIND's archive again") from None


def mind_files(path: Path) -> list[tuple[str, Path]]:
    """Their names with that of their folder: all are called alike."""
    return [(f"{file.parent.name}/{file.name}", file) for file in logged_files(path, [LOG])]


def _impression(cells: list[str]) -> Impression:
    if len(cells) != LOG_COLUMNS:
        raise Refused(f"not {LOG_COLUMNS} columns")
    _, user, time, _, shown = cells
    marks = [mark.rpartition("-") for mark in shown.split()]
    if any(clicked not in (PASSED, CLICKED) or not item for item, _, clicked in marks):
        raise Refused("a candidate without -0 or -1: MIND's test set does not say what was clicked")
    try:
        moment = datetime.strptime(time.strip(), TIME).replace(tzinfo=UTC)
    except ValueError:
        raise Refused("no time, or none that can be read") from None
    return Impression(user.strip(), int(moment.timestamp()), tuple(item for item, _, _ in marks), tuple(int(mark[2]) for mark in marks))
