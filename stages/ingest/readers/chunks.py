"""Reads a raw file, plain, gzipped or inside a zip archive, in blocks of whole lines: memory does not grow with the file."""

import gzip
import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl
import pyarrow as pa

from stages.ingest.readers.raw import RawFile
from stages.shared.core.errors import StageError
from stages.shared.core.progress import Progress, note
from stages.shared.sources.encoding import BOM, UTF8, as_utf8, shown, unpacked

BLOCK = 16 * 2**20  # bytes
LONGEST_LINE = 64 * 2**20
_C1 = re.compile("[\x80-\x9f]")


@dataclass(frozen=True)
class Input:
    """A file on disk, or the `member` of the zip archive at `path`."""

    path: Path
    member: str = ""

    @property
    def name(self) -> str:
        return Path(self.member).name if self.member else self.path.name


@dataclass(frozen=True)
class Block:
    """Whole lines; `first_row` is the number, from 1, of the first of them in its file."""

    data: bytes
    first_row: int


class Lines:
    """The blocks of a file, to be read once. A line ends at a newline only: a title may hold other line separators.

    With `header` the first line is not part of the blocks but of `self.header`. After the last block `self.file` is known.
    Gzip is recognised by its first bytes, whatever the name says, UTF-16 and UTF-32 by theirs; the blocks are UTF-8, but for bytes that are
    no text. StageError: no such file, damaged, or not text.
    """

    def __init__(self, source: Input, header: bool = False):
        self.name = source.name
        self.header = b""
        self.encoding = UTF8
        self.file = RawFile(source.name, "", 0)
        self._source = source
        self._has_header = header

    def __iter__(self) -> Iterator[Block]:
        try:
            yield from self._blocks()
        except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
            where = f"{self._source.path.name}, {self.name}" if self._source.member else self.name
            raise StageError(f"{where}: cut short or damaged ({error}); fetch it again") from None

    def _blocks(self) -> Iterator[Block]:
        with ExitStack() as stack:
            counted = _Counted(_open(self._source, stack), _size(self._source), self.name)
            stack.callback(counted.progress.close)
            packed = io.BufferedReader(counted, 2**20)
            stream, self.encoding = as_utf8(unpacked(packed), self.name)
            if self.encoding != UTF8:
                note(f"{self.name}: {shown(self.encoding)}, by its byte-order mark; read as UTF-8")
            rest = self._start(stream)
            row = 1 + self._has_header
            while chunk := stream.read(BLOCK):
                data, rest = _whole_lines(rest, chunk)
                if data:
                    yield Block(data, row)
                    row += _newlines(data)
                if len(rest) > LONGEST_LINE:
                    raise StageError(f"{self.name}, row {row}: longer than {LONGEST_LINE >> 20} MiB; this is not a file of lines")
            if rest:
                yield Block(rest, row)
            while packed.read(2**20):  # what may follow the gzip stream belongs to the hash, too
                pass
            self.file = RawFile(self.name, counted.hash.hexdigest(), counted.size, self.encoding)

    def _start(self, stream: Any) -> bytes:
        """Beginning of the file, without byte order mark and header."""
        start: bytes = stream.readline(LONGEST_LINE) if self._has_header else stream.read(BLOCK)
        while start.startswith(BOM):  # two of them, where a tool has put its own before the one that was there
            start = start.removeprefix(BOM)
        if self._has_header:
            self.header = start
            return b""
        return start


class _Counted(io.RawIOBase):
    """Hashes and counts the bytes that are read through it."""

    def __init__(self, inner: IO[bytes], total: int, name: str):
        self.inner = inner
        self.hash = hashlib.sha256()
        self.size = 0
        self.progress = Progress(name, total, unit="B")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size: int = self.inner.readinto(buffer)  # type: ignore[attr-defined]
        self.hash.update(memoryview(buffer)[:size])
        self.size += size
        self.progress.add(size)
        return size


def _whole_lines(rest: bytes, chunk: bytes) -> tuple[bytes, bytes]:
    """`rest` and `chunk` behind each other: what is whole lines, and what is not."""
    if end := chunk.rfind(b"\n") + 1:
        return b"".join([rest, memoryview(chunk)[:end]]), chunk[end:]  # each byte copied once
    end = rest.rfind(b"\n") + 1
    return rest[:end], rest[end:] + chunk


def _newlines(data: bytes) -> int:
    """As data.count, which goes from one to the next: lines are short."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == 10))


def line_table(block: Block, encoding: str = "utf-8") -> pl.DataFrame:
    """Columns line, row, reason: one row a line that is not blank. `reason` is null, or "not UTF-8".

    encoding: of lines that are not UTF-8.
    """
    # Only encodings whose byte 10 is always a newline can be cut into lines before they are decoded.
    data, bad_lines = block.data, list[int]()
    if not _is_utf8(data):
        lines = data.split(b"\n")
        for line_index, line in enumerate(lines):
            # Line by line: parts of a file may have been converted, and Latin-1 text that happens to be valid UTF-8 does not occur.
            if not _is_utf8(line):
                text = _decoded(line, encoding)
                bad_lines += [line_index] if text is None else []
                lines[line_index] = (line.decode(errors="replace") if text is None else text).encode()
        data = b"\n".join(lines)
    # The lines are handed to Arrow as one buffer with offsets: no Python object a line.
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 10) + 1
    offsets = np.concatenate([[0], ends if data.endswith(b"\n") else [*ends, len(data)]]).astype(np.int64)
    line_array = pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))
    stripped = pl.col("line").str.strip_chars_end("\r\n")
    if BOM in data:  # a mark also begins a part that was put behind another; as a part of an id nobody would see it
        stripped = stripped.str.strip_chars_start("\ufeff")
    table = pl.DataFrame({"line": pl.Series(pl.from_arrow(line_array), dtype=pl.String)}).with_columns(
        stripped,
        row=pl.int_range(block.first_row, block.first_row + len(offsets) - 1, dtype=pl.Int64),
        reason=pl.lit(None, dtype=pl.String),
    )
    if bad_lines:
        table = table.with_columns(
            reason=pl.when(pl.col("row").is_in([block.first_row + line_index for line_index in bad_lines])).then(pl.lit("not UTF-8"))
        )
    if b"\x00" in data:  # a part in UTF-16 that was put behind one in UTF-8: every other byte of it is zero
        is_wide = 3 * pl.col("line").str.count_matches("\x00", literal=True) >= pl.col("line").str.len_bytes()
        table = table.with_columns(reason=pl.when(is_wide & (pl.col("line") != "")).then(pl.lit("not UTF-8")).otherwise("reason"))
    first_bytes = np.frombuffer(data, np.uint8)[offsets[:-1]]
    if ((first_bytes > ord(" ")) & (first_bytes < 128)).all():  # no line is blank, as in most blocks: a look at a byte a line shows it
        return table
    return table.filter(pl.col("line").str.strip_chars().str.len_bytes() > 0)


def _decoded(line: bytes, encoding: str) -> str | None:
    """Of a line that is not UTF-8; None where it is not text in the file's own encoding either."""
    if encoding == "utf-8":
        return None
    text = line.decode(encoding)
    # Latin-1 gives every byte a meaning. Its control characters are no text: in their place Windows has quotes and dashes.
    return text if not _C1.search(text) else _decoded_windows(line)


def _decoded_windows(line: bytes) -> str | None:
    try:
        return line.decode("cp1252")
    except UnicodeDecodeError:
        return None


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _open(source: Input, stack: ExitStack) -> IO[bytes]:
    if source.path.is_dir():
        raise StageError(f"{source.path}: a folder, not a file; put its parts together, and name that file")
    if not source.path.is_file():
        raise StageError(f"{source.path}: no such file; put it there, or look at ingest.folder")
    if not source.member:
        return stack.enter_context(source.path.open("rb"))
    archive = stack.enter_context(zipfile.ZipFile(source.path))
    if source.member not in archive.namelist():
        raise StageError(f"{source.path}: holds no {source.member}; fetch the archive again")
    return stack.enter_context(archive.open(source.member))


def _size(source: Input) -> int:
    if not source.member:
        return source.path.stat().st_size
    with zipfile.ZipFile(source.path) as archive:
        return archive.getinfo(source.member).file_size
