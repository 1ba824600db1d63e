"""Compares the data folders of two releases file by file: which bytes are equal, which only carry new names, which differ.

    python bench/compare_data.py OLD_DATA NEW_DATA [--markdown]

The renames between the releases are declared in bench/compare_data_renames.py. A file counts as

  equal bytes      its content hash is the same
  equal, renamed   not the bytes, but the content: tables compared cell by cell (and column types), JSON value by value, text by
                   letter, after the old file was given the new names
  excepted         it differs, and compare_data_renames.py says why it should
  differs          anything else; then the exit code is 1
"""

import argparse
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import polars as pl

EQUAL, RENAMED, EXCEPTED, DIFFERS = "equal bytes", "equal, renamed", "excepted", "differs"


@dataclass(frozen=True)
class Renames:
    """What changed its name. File patterns match the *new* path, relative to the data folder."""

    moved: tuple[tuple[str, str], ...] = ()  # old path or folder (ends with "/") -> new one; the first match counts
    columns: dict[str, dict[str, str]] = field(default_factory=dict)  # pattern -> old column -> new column
    values: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)  # pattern, new column -> old -> new
    keys: dict[str, dict[str, str]] = field(default_factory=dict)  # JSON: pattern -> old key -> new key, at any depth
    words: dict[str, dict[str, str]] = field(default_factory=dict)  # text files: pattern -> old word -> new word, as whole words
    ignored_keys: dict[tuple[str, str], str] = field(default_factory=dict)  # pattern, dotted new key -> the reason
    rows: dict[str, dict[str, str]] = field(default_factory=dict)  # pattern -> column -> value of the new rows that the old table had
    added_columns: dict[str, tuple[str, ...]] = field(default_factory=dict)  # pattern -> columns that the old table did not have
    exceptions: dict[str, str] = field(default_factory=dict)  # pattern -> why the file may differ or exist on one side


@dataclass(frozen=True)
class Comparison:
    old: str | None  # None: a new file
    new: str | None  # None: no longer written
    verdict: str
    reason: str = ""


def compare_folders(old: Path, new: Path, renames: Renames) -> list[Comparison]:
    old_files = {new_path(name, renames.moved): name for name in data_files(old)}
    new_files = set(data_files(new))
    rows = []
    for name in sorted(old_files.keys() | new_files):
        old_name, new_name = old_files.get(name), name if name in new_files else None
        if old_name is None or new_name is None:
            missing = "only in the new folder" if old_name is None else "only in the old folder"
            rows.append(with_exceptions(Comparison(old_name, new_name, DIFFERS, missing), name, renames))
        else:
            verdict, reason = compare_files(old / old_name, new / name, name, renames)
            rows.append(with_exceptions(Comparison(old_name, new_name, verdict, reason), name, renames))
    return rows


def data_files(folder: Path) -> list[str]:
    """Every file of a data folder except the README and .gitignore files, which people and DVC write."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("README.md", ".gitignore"))
    return sorted(str(path.relative_to(folder)) for path in files)


def new_path(name: str, moved: Iterable[tuple[str, str]]) -> str:
    for old, new in moved:
        if name == old or (old.endswith("/") and name.startswith(old)):
            return new + name.removeprefix(old)
    return name


def with_exceptions(row: Comparison, name: str, renames: Renames) -> Comparison:
    if row.verdict != DIFFERS:
        return row
    for pattern, reason in renames.exceptions.items():
        if fnmatch(name, pattern):
            return Comparison(row.old, row.new, EXCEPTED, f"{row.reason}; {reason}" if row.reason else reason)
    return row


def compare_files(old: Path, new: Path, name: str, renames: Renames) -> tuple[str, str]:
    """The verdict and what differs."""
    if digest(old) == digest(new):
        return EQUAL, ""
    if new.suffix in (".parquet", ".csv"):
        difference = table_difference(old, new, name, renames)
    elif new.suffix == ".json":
        difference = json_difference(old, new, name, renames)
    elif new.suffix == ".md" and with_new_words(old, name, renames) == new.read_text(encoding="utf-8"):
        difference = ""
    else:
        difference = f"{old.stat().st_size} and {new.stat().st_size} bytes"
    return (DIFFERS, difference) if difference else (RENAMED, "")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_table(path: Path) -> pl.DataFrame:
    # CSV as text: two spellings of one number would be a difference
    return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema=False)


def table_difference(old: Path, new: Path, name: str, renames: Renames) -> str:
    """Empty when the old table, with the new names, is the new one."""
    old_table, new_table = read_table(old), read_table(new)
    columns = {column: renamed for column, renamed in matching(renames.columns, name) if column in old_table.columns}
    old_table = old_table.rename(columns)
    for (pattern, column), values in renames.values.items():
        if fnmatch(name, pattern) and column in old_table.columns:
            old_table = old_table.with_columns(pl.col(column).replace(values))
    for column, value in matching(renames.rows, name):
        new_table = new_table.filter(pl.col(column) == value)
    for pattern, added in renames.added_columns.items():
        if fnmatch(name, pattern):
            new_table = new_table.drop(added)
    if missing := sorted(set(old_table.columns) ^ set(new_table.columns)):
        return f"columns on one side only: {', '.join(missing)}"
    new_table = new_table.select(old_table.columns)  # the order of columns is no content
    if old_table.schema != new_table.schema:
        return "column types: " + ", ".join(c for c in old_table.columns if old_table.schema[c] != new_table.schema[c])
    if old_table.height != new_table.height:
        return f"{old_table.height} and {new_table.height} rows"
    different = [column for column in old_table.columns if not old_table[column].equals(new_table[column])]
    return f"values of {', '.join(different)}" if different else ""


def json_difference(old: Path, new: Path, name: str, renames: Renames) -> str:
    """Empty when the old document, with the new keys, is the new one."""
    keys = dict(matching(renames.keys, name))
    old_values = flatten(rename_keys(json.loads(old.read_text(encoding="utf-8")), keys))
    new_values = flatten(json.loads(new.read_text(encoding="utf-8")))
    ignored = [key for pattern, key in renames.ignored_keys if fnmatch(name, pattern)]
    absent = object()
    different = [
        key
        for key in sorted(old_values.keys() | new_values.keys())
        if old_values.get(key, absent) != new_values.get(key, absent) and not any(below(key, k) for k in ignored)
    ]
    return f"{len(different)} values, as {', '.join(different[:4])}" if different else ""


def with_new_words(path: Path, name: str, renames: Renames) -> str:
    text = path.read_text(encoding="utf-8")
    for old, new in matching(renames.words, name):
        text = re.sub(rf"\b{re.escape(old)}\b", new, text)
    return text


def matching(table: dict[str, dict[str, str]], name: str) -> list[tuple[str, str]]:
    return [pair for pattern, pairs in table.items() if fnmatch(name, pattern) for pair in pairs.items()]


def rename_keys(document: Any, keys: dict[str, str]) -> Any:
    if isinstance(document, dict):
        return {keys.get(key, key): rename_keys(value, keys) for key, value in document.items()}
    if isinstance(document, list):
        return [rename_keys(value, keys) for value in document]
    return document


def flatten(document: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value; empty dicts and lists are values too, so that their loss shows."""
    if not isinstance(document, dict | list) or not document:
        return {prefix: document}
    items = document.items() if isinstance(document, dict) else enumerate(document)
    return {k: v for key, value in items for k, v in flatten(value, f"{prefix}.{key}" if prefix else str(key)).items()}


def below(key: str, parent: str) -> bool:
    return key == parent or key.startswith(f"{parent}.")


def report(rows: list[Comparison], markdown: bool) -> str:
    lines = []
    if markdown:
        lines += ["| file | was | verdict | why |", "|---|---|---|---|"]
    for row in rows:
        name, was = row.new or "(none)", row.old or "(new)"
        shown_was = "" if was == name else was
        lines.append(
            f"| {name} | {shown_was} | {row.verdict} | {row.reason} |"
            if markdown
            else f"{row.verdict:<15} {name}{f'  (was {shown_was})' if shown_was else ''}{f': {row.reason}' if row.reason else ''}"
        )
    counts = Counter(row.verdict for row in rows)
    totals = ", ".join(f"{counts[verdict]} {verdict}" for verdict in (EQUAL, RENAMED, EXCEPTED, DIFFERS))
    return "\n".join([*lines, "", f"{len(rows)} files: {totals}."])


def main() -> None:
    from compare_data_renames import RENAMES  # it imports this module

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="the data folder of the earlier release")
    parser.add_argument("new", type=Path, help="the data folder of the later release")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    args = parser.parse_args()
    for folder in (args.old, args.new):
        if not folder.is_dir():
            parser.error(f"{folder} is no folder")
    rows = compare_folders(args.old, args.new, RENAMES)
    print(report(rows, args.markdown))
    sys.exit(any(row.verdict == DIFFERS for row in rows))


if __name__ == "__main__":
    main()
