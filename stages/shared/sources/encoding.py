"""Text files by their first bytes: gzip unpacked, and UTF-16 or UTF-32 with a byte-order mark as UTF-8. Without a mark nothing is certain:
refused."""

import codecs
import gzip
import io
import re
from typing import IO, Any

from stages.shared.core.errors import StageError

BOM = codecs.BOM_UTF8
UTF8 = "utf-8"
# The longer marks first: that of UTF-32 begins like one of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_LOOKED_AT = 64  # bytes; UTF-16 without a mark has a zero in every other one of plain text
_READ, _UNPACKED = 2**20, 2**16
_GZIP = b"\x1f\x8b"
# Two bytes of plain text that are read as one character. Sixteen in a row are no Chinese, of which they make a mixture.
_ASCII = "\t\n\r" + "".join(map(chr, range(0x20, 0x7F)))
_PAIRS = re.compile("[" + "".join(f"{chr(256 * ord(high) + 0x20)}-{chr(256 * ord(high) + 0x7E)}" for high in _ASCII[3:]) + "]{16}")
_SWAPPED = "\ufffe"  # a mark of the other byte order


def declared(start: bytes) -> str:
    """What the mark at the beginning of a file declares; "utf-8" where there is none, or UTF-8's own."""
    return next((encoding for mark, encoding in _MARKS.items() if start.startswith(mark)), UTF8)


def shown(encoding: str) -> str:
    """For people: UTF-16, little-endian."""
    return encoding.upper().replace("-LE", ", little-endian").replace("-BE", ", big-endian")


def unpacked(stream: "io.BufferedReader[Any]") -> "io.BufferedReader[Any]":
    """What `stream` holds: gzip is told by its first bytes, whatever the file is called."""
    if stream.peek(len(_GZIP))[: len(_GZIP)] != _GZIP:
        return stream
    return io.BufferedReader(gzip.GzipFile(fileobj=stream), _UNPACKED)


def as_utf8(stream: "io.BufferedReader[Any]", name: str) -> tuple["io.BufferedReader[Any]", str]:
    """The text of `stream` as UTF-8, marks at its beginning included, and the encoding it had.

    What is cut short or no such text raises StageError, with `name` and the row; half of a surrogate pair, bytes that are not UTF-8 either.
    """
    start = stream.peek(_LOOKED_AT)[:_LOOKED_AT]
    encoding = declared(start)
    if encoding != UTF8:
        return io.BufferedReader(_Converted(stream, encoding, name), _READ), encoding
    if b"\x00" in start:
        raise StageError(f"{name}, row 1: {no_utf8(name)}")
    return stream, encoding


def no_utf8(name: str) -> str:
    return f"not text in UTF-8 (UTF-16, or no text at all); convert it, e.g. {to_utf8(name, 'utf-16')}"


def to_utf8(name: str, encoding: str) -> str:
    """A command that writes the file anew as UTF-8, beside it."""
    unpacked = name.removesuffix(".gz")
    read = f"gunzip -c {name} | iconv -f {encoding} -t utf-8" if unpacked != name else f"iconv -f {encoding} -t utf-8 {name}"
    return f"{read} > utf8-{unpacked}"


class _Converted(io.RawIOBase):
    def __init__(self, inner: IO[bytes], encoding: str, name: str):
        self.inner = inner
        self.encoding = encoding
        self.name = name
        # A half of a surrogate pair stays one, so that its row alone is bad.
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        self._ready = b""
        self._row = 1

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self.inner.read(_READ)
            self._ready = self._text(data).encode(errors="surrogatepass")
            if not data:
                break
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _text(self, data: bytes) -> str:
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(self.encoding, "surrogatepass")
            raise self._wrong(before, error.reason) from None
        place = text.find(_SWAPPED)
        if place < 0 and (pairs := _PAIRS.search(text)):
            place = pairs.start()
        if place >= 0:
            raise self._wrong(text[:place], "a part in another encoding was put behind")
        self._row += text.count("\n")
        return text

    def _wrong(self, before: str, why: str) -> StageError:
        row = self._row + before.count("\n")
        return StageError(f"{self.name}, row {row}: not text in {shown(self.encoding)}, as its byte-order mark has it ({why}); convert it")
