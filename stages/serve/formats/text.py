"""Lines of the text files that people bring: UTF-8, or UTF-16 and UTF-32 with a byte-order mark; gzipped ones, whatever they are called."""

import io
import zlib
from collections.abc import Iterator
from pathlib import Path

from stages.shared.core.errors import StageError
from stages.shared.sources.encoding import as_utf8, unpacked

PACKED = ".gz"


def kind(path: Path) -> str:
    """The ending that says what a file holds: .jsonl of requests.jsonl and of requests.jsonl.gz."""
    return path.with_suffix("").suffix if path.suffix == PACKED else path.suffix


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Those that are not blank, without their ends and marks, with their numbers from 1. StageError names the line that is no text."""
    number = 0
    try:
        with path.open("rb") as file:
            text = io.TextIOWrapper(as_utf8(unpacked(file), path.name)[0], encoding="utf-8")
            for number, line in enumerate(text, 1):
                if line.strip("\ufeff\n").strip():
                    yield number, line.lstrip("\ufeff").rstrip("\n")
    except (EOFError, zlib.error, UnicodeDecodeError, OSError) as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError) else error
        expected = "a whole file is expected, text in UTF-8 (iconv converts), plain or gzipped"
        raise StageError(f"{path}: cannot be read after line {number} ({reason}); {expected}") from None
