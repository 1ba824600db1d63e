"""Files of other programs, by their first bytes: what they are, and how they become one that is read here."""

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
