"""Files of other programs, by their first bytes, and text that is written for them: how it becomes a file that is read here."""

import csv
import io
import re
from collections import Counter

_BEGINNINGS = {
    b"PK\x03\x04": "a zip archive; unpack it",
    b"PK\x05\x06": "an empty zip archive",
    b"\xd0\xcf\x11\xe0": "a workbook of an old Excel; save its sheet as CSV (UTF-8)",
    b"SQLite format 3\0": "an SQLite database; write its table out: sqlite3 -header -csv FILE 'SELECT * FROM TABLE' > table.csv",
    b"ARROW1\0\0": "an Arrow (Feather) file; write it as Parquet: polars.read_ipc(FILE).write_parquet('table.parquet')",
    b"Obj\x01": "an Avro file; write it as Parquet: polars.read_avro(FILE).write_parquet('table.parquet')",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it (zstd -d), or compress it with gzip",
    b"\xfd7zXZ": "compressed with xz; unpack it (unxz), or compress it with gzip",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"\x89HDF": "an HDF5 file; write its table as Parquet: pandas.read_hdf(FILE).to_parquet('table.parquet')",
    b"%PDF-": "a PDF",
}
_WORKBOOKS = {
    ".xlsx": "an Excel workbook",
    ".xlsm": "an Excel workbook",
    ".ods": "a LibreOffice workbook",
    ".numbers": "a Numbers workbook",
}
_PICKLE = b"\x80"
_LOOKED_AT = 2**18  # characters
_STEADY = 0.9  # share of rows with as many columns as the first


def foreign(start: bytes, name: str) -> str:
    """start: the first 16 bytes. Empty where the file is none of these."""
    ending = name[name.rfind(".") :].lower()
    if start[:2] == b"PK" and ending in _WORKBOOKS:
        return f"{_WORKBOOKS[ending]}; save its sheet as CSV (UTF-8)"
    if start[:1] == _PICKLE and ending in (".pkl", ".pickle"):
        return "a pickle of Python, which may run anything when it is read; write its table as Parquet where it was made"
    if start[:3] == b"ORC" and start[3:4] < b" ":  # a text may begin with these letters
        return "an ORC file; write it as Parquet: pyarrow.parquet.write_table(pyarrow.orc.read_table(FILE), 'table.parquet')"
    if start[:3] == b"BZh" and start[4:10] == b"1AY&SY":
        return "compressed with bzip2; unpack it (bunzip2), or compress it with gzip"
    return next((what for beginning, what in _BEGINNINGS.items() if start.startswith(beginning)), "")


def written_otherwise(name: str, first_line: str, text: str) -> str:
    """Of a text file: a line for Excel before the names, or records that go over several lines. Empty where it has neither."""
    unpack = "unpack it, and " if name.endswith(".gz") else ""
    name = name.removesuffix(".gz")
    if re.fullmatch(r'"?sep=.{1,2}"?\s*', first_line, re.IGNORECASE):
        return (
            f"begins with {first_line.strip()}, which Excel understands and nothing else; {unpack}leave that line out: sed -i 1d '{name}'"
        )
    cut = next((separator for separator in ",;|" if '"' in text and _over_lines(text, separator)), "")
    if not cut:
        return ""
    how = "" if cut == "," else f", delimiter='{cut}'"
    command = (
        f"import csv; csv.writer(open('one-line.csv', 'w', newline=''){how}).writerows([' '.join(field.split()) for field in row] "
        f"for row in csv.reader(open('{name}', newline=''){how}))"
    )
    return f'its records go over several lines, and one a line is read here; {unpack}write each in one line: python3 -c "{command}"'


def _over_lines(text: str, separator: str) -> bool:
    """Whether the rules of CSV make rows of one width of it, some with a line break in a field."""
    try:
        rows = [row for row in csv.reader(io.StringIO(text[:_LOOKED_AT], newline=""), delimiter=separator) if row]
    except csv.Error:
        return False
    rows = rows[:-1]  # the last may be cut
    if len(rows) < 2 or len(rows[0]) < 2 or not any("\n" in field for row in rows for field in row):
        return False
    return Counter(map(len, rows))[len(rows[0])] > _STEADY * len(rows)
