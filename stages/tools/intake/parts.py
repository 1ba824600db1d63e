"""A folder's files, with those that are parts of one table taken as one: part-00000.parquet and part-00001.parquet, or a folder of such."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from stages.ingest.sources.parts import parts_of
from stages.tools.intake.choices import Choices
from stages.tools.intake.columns import Column
from stages.tools.intake.look import FileLook, look

_LOOKED_AT = 10  # parts of one table; ingest reads all


def looks(folder: Path, choices: Choices) -> list[FileLook]:
    """Every file, or the pattern that its parts have in common."""
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    alike: dict[str, list[Path]] = {}
    for path in paths:
        # Numbers tell parts and months from each other.
        alike.setdefault(path.name if path.is_dir() else re.sub(r"\d+", "0", path.name), []).append(path)
    found: list[FileLook] = []
    for group in alike.values():
        if len(group) == 1 and not group[0].is_dir():
            found.append(look(group[0], choices))
        else:
            found += _of_folder(folder, group[0], choices) if group[0].is_dir() else _of_group(folder, group, choices)
    return sorted(found, key=lambda file: file.name)


def _of_folder(folder: Path, path: Path, choices: Choices) -> Iterator[FileLook]:
    """`path`: of a folder in `folder`; its parts, at any depth, or why it is not read."""
    inside = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith((".", "_")))
    if not inside:
        yield FileLook(path.name, fault="a folder without a file")
        return
    ending = "".join(inside[0].suffixes[-2:] if inside[0].suffix == ".gz" else inside[0].suffixes[-1:])
    between = "*" if all(file.parent == path for file in inside) else "**/*"
    pattern = f"{path.name}/{between}{ending}"
    whole = _as_one(folder, pattern, inside, choices)
    yield whole or FileLook(path.name, fault="a folder whose files are not parts of one table; name it as FOLDER where the data lie in it")


def _of_group(folder: Path, paths: Sequence[Path], choices: Choices) -> list[FileLook]:
    names = [path.name for path in paths]
    start = _alike(names)
    end = _alike([name[len(start) :][::-1] for name in names])[::-1]
    whole = _as_one(folder, f"{start}*{end}", paths, choices)
    return [whole] if whole else [look(path, choices) for path in paths]


def _alike(texts: Sequence[str]) -> str:
    """What all begin with."""
    first, last = min(texts), max(texts)
    length = next((place for place, letter in enumerate(first) if not last.startswith(letter, place)), len(first))
    return first[:length]


def _as_one(folder: Path, pattern: str, paths: Sequence[Path], choices: Choices) -> FileLook | None:
    """None where other files fit the pattern too, or the parts are not alike: another form, or other columns."""
    if parts_of(folder, pattern) != list(paths):
        return None
    asked = Choices(choices.given)
    files = [look(path, asked) for path in paths[:_LOOKED_AT]]
    full = [file for file in files if file.fault not in ("empty", "no rows")]
    if not full or any(file.fault or _kind(file) != _kind(full[0]) for file in full):
        return None
    columns = {}
    for name in full[0].columns:
        shapes = {file.columns[name].shape for file in full if len(file.columns[name].filled)}
        if len(shapes) > 1:
            return None
        values = pl.concat([file.columns[name].values for file in full])
        columns[name] = Column(name, values, next(iter(shapes), full[0].columns[name].shape))
    choices.questions += [question for question in asked.questions[:1] if question not in choices.questions]
    names = ", ".join(path.name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
    notes = (f"{len(paths)} parts with the same columns, read as one table: {names}", *full[0].notes)
    rows, whole = sum(file.rows for file in full), all(file.whole for file in full) and len(paths) <= _LOOKED_AT
    parts = tuple(path.name for path in paths)
    return replace(full[0], name=pattern, columns=columns, rows=rows, whole=whole, notes=notes, parts=parts)


def _kind(file: FileLook) -> tuple[object, ...]:
    return file.form, file.separator, file.encoding, frozenset(file.columns)
