"""Which file holds lists that were shown, and in which of three forms; told by what its values are to each other.

- lists: a column of several ids a cell, and one whose ids are always among them: what was taken;
- marks: the same with what was taken behind each id, as in N1-0 N2-1 (MIND);
- rows: a row a shown item: rows with one id of a list have one time and different items, and a column of 0 and 1.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from stages.shared.core.errors import StageError
from stages.shared.sources.written_lists import written_list
from stages.tools.intake.choices import NONE, Choices
from stages.tools.intake.columns import Column, share
from stages.tools.intake.item_columns import depends
from stages.tools.intake.look import FileLook
from stages.tools.intake.words import fit

SEPARATORS = (" ", "|", ";", ",", "/", ":")
_ROWS = 2_000  # looked at
_MOST, _NEARLY_ALL = 0.8, 0.99
_MARK = re.compile(r".+-\d{1,2}")
_FLAGS = ({"0", "1"}, {"true", "false"}, {"t", "f"}, {"yes", "no"}, {"y", "n"})  # whether it was taken, in rows of one item
Cells = list[list[str]]


@dataclass(frozen=True)
class ShownLists:
    """A file of lists. `shown`: the column of candidates, or of the item; `taken`: "" with marks; `separator`: "" where cells hold lists.

    `why`: it is taken for one; not `certain`: other files look the same, and names do not tell.
    """

    file: FileLook
    form: Literal["lists", "marks", "rows"]
    shown: str
    taken: str
    why: str
    certain: bool
    separator: str = ""
    slate: str = ""
    place: str = ""

    @property
    def used(self) -> set[str]:
        return {self.shown, self.taken, self.slate, self.place} - {""}

    def ids(self) -> Column:
        """Of the items, a row each."""
        column = self.file.columns[self.shown]
        if self.form == "rows":
            return column
        entries = [entry for cell in cells_of(column, self.separator) for entry in cell]
        if self.form == "marks":
            entries = [entry.rpartition("-")[0] for entry in entries]
        return Column(self.shown, pl.Series(self.shown, entries, pl.String), "text")


def find_lists(files: Sequence[FileLook], choices: Choices) -> ShownLists | None:
    """None where no file looks like one, or a question is left."""
    if (name := choices.given.get("lists")) == NONE:
        return None
    tables = [file for file in files if not file.fault and name in (None, file.name)]
    if name and not tables:
        raise StageError(f"--lists {name}: no table of that name (files here: {', '.join(map(str, files))})")
    found = {file.name: lists for file in tables if (lists := lists_in(file, choices)) is not None}
    if len(found) > 1:
        choices.ask("more than one file may be that of the lists that were shown", "lists", [*found, NONE])
        return None
    for lists in found.values():
        if not lists.certain and not name:
            choices.ask(f"{lists.file.name} may hold lists that were shown: {lists.why}", "lists", [lists.file.name, NONE])
    if name and not found and not choices.questions:
        raise StageError(
            f"--lists {name}: no column of it holds several ids a cell with those that were taken (--shown, --taken), and no column says "
            "which rows are one list (--slate)"
        )
    return next(iter(found.values()), None)


def lists_in(file: FileLook, choices: Choices) -> ShownLists | None:
    # A list was shown to somebody at some time: tables of items have neither.
    if not any(column.times for column in file.columns.values()):
        return None
    whole = [*_whole_lists(file, choices)]
    if len(whole) > 1:
        _ask_between(file, whole, choices)
        return None
    return whole[0] if whole else _item_rows(file, choices)


def cells_of(column: Column, separator: str) -> Cells:
    """The ids of each cell; [] of an empty one. separator: "" where the column holds lists."""
    values = column.values[:_ROWS].to_list()
    if column.shape == "list":
        return [[str(entry) for entry in written_list(value) or []] if value else [] for value in values]
    return [[part.strip() for part in value.split(separator) if part.strip()] if value else [] for value in values]


def _whole_lists(file: FileLook, choices: Choices) -> Iterator[ShownLists]:
    separators = (choices.given["list_separator"],) if "list_separator" in choices.given else SEPARATORS
    for name, column in file.columns.items():
        if column.shape not in ("list", "text") or choices.given.get("shown", name) != name:
            continue
        for separator in ("",) if column.shape == "list" else separators:
            cells = cells_of(column, separator)
            if not _are_lists(cells):
                continue
            if all(_MARK.fullmatch(entry) for cell in cells for entry in cell):
                marks = {entry.rpartition("-")[2] for cell in cells for entry in cell}
                if len(marks) > 1:
                    why = f"several ids a cell, each with a mark behind it ({' '.join(next(filter(None, cells))[:2])})"
                    yield ShownLists(file, "marks", name, "", why, marks == {"0", "1"}, separator)
                continue
            for other in file.columns:
                taken = file.columns[other]
                if other == name or choices.given.get("taken", other) != other or depends(column, taken) or _is_known_of(taken, column):
                    continue  # the same for all rows of one item is its title, or what else is known of it
                if _is_taken_of(taken, cells, separator):
                    why = f"several ids a cell; those of '{other}' are always among them"
                    yield ShownLists(file, "lists", name, other, why, bool(fit("taken", other)), separator)


def _is_known_of(column: Column, name: Column) -> bool:
    """Whether `name` holds a few texts in many rows, each with one value of `column`: titles, with a word of theirs as the kind."""
    return 2 * len(name.distinct) <= len(name.filled) and depends(column, name)


def _are_lists(cells: Cells) -> bool:
    """Several different ids in most cells, which return in others."""
    filled = [cell for cell in cells if cell]
    entries = [entry for cell in filled for entry in cell]
    if len(filled) < 2 or sum(len(cell) > 1 for cell in filled) < _MOST * len(filled):
        return False
    if sum(len(set(cell)) == len(cell) for cell in filled) < _NEARLY_ALL * len(filled) or len(set(entries)) > _MOST * len(entries):
        return False
    return not any(len(entry) > 64 or re.search(r"""\s|^-?\d+[.]\d+$|^[\['"]""", entry) for entry in entries)


def _is_taken_of(column: Column, shown: Cells, separator: str) -> bool:
    if column.shape not in ("list", "text", "number"):
        return False
    taken = cells_of(column, separator or " ")
    pairs = [(set(some), cell) for some, cell in zip(taken, shown, strict=True) if some and cell]
    if not pairs or sum(some <= set(cell) for some, cell in pairs) < _NEARLY_ALL * len(pairs):
        return False
    # Another order of the same is not what was taken of it.
    return sum(len(some) for some, _ in pairs) < sum(len(cell) for _, cell in pairs)


def _ask_between(file: FileLook, readings: Sequence[ShownLists], choices: Choices) -> None:
    for flag, values in (
        ("shown", [reading.shown for reading in readings]),
        ("taken", [reading.taken for reading in readings]),
        ("list_separator", [reading.separator for reading in readings]),
    ):
        if len(set(values)) > 1:
            choices.ask(f"{file.name}: lists that were shown can be read in more than one way", flag, [*dict.fromkeys(values)])
            return


def _item_rows(file: FileLook, choices: Choices) -> ShownLists | None:
    flags = [name for name, column in file.columns.items() if {*map(str.lower, column.distinct)} in _FLAGS]
    flags = [choices.given["taken"]] if choices.given.get("taken") in file.columns else flags
    table = pl.DataFrame({name: column.values for name, column in file.columns.items()})
    slates = [name for name in file.columns if choices.given.get("slate", name) == name] if flags else []
    found = {slate: items for slate in slates if (items := _items_of(file, table, slate))}
    if not flags or not found:
        return None
    slate = _one(file, "slate", [*found], "the list that a row belongs to", choices)
    taken = _one(file, "taken", flags, "what was taken", choices)
    if not slate or not taken:
        return None
    distinct = [name for name in found[slate] if name not in (slate, taken)]
    places = [name for name in distinct if _is_place(table, slate, name)]
    place = choices.given["place"] if choices.given.get("place") in file.columns else places[0] if len(places) == 1 else ""
    place = next((name for name in places if fit("place", name)), place)
    shown = _one(file, "shown", [name for name in distinct if name not in places and file.columns[name].is_id], "the item", choices)
    if not shown:
        return None
    values = " or ".join(sorted(file.columns[taken].distinct))
    order = f"; in the order of '{place}'" if place else ""
    why = f"rows of one '{slate}' have one time and different '{shown}', and '{taken}' is {values}{order}"
    # Orders with a column of what was sent back look the same.
    certain = bool(fit("taken", taken) and (fit("slate", slate) or place))
    return ShownLists(file, "rows", shown, taken, why, certain, slate=slate, place=place)


def _items_of(file: FileLook, table: pl.DataFrame, slate: str) -> list[str]:
    """Columns whose values differ within each list, where `slate` is its id; [] where it is none."""
    column = file.columns[slate]
    if not column.is_id or column.is_unique or column.times:
        return []
    times = [name for name, other in file.columns.items() if other.times and name != slate]
    others = [name for name in file.columns if name != slate]
    groups = table.drop_nulls(slate).group_by(slate).agg(pl.len().alias("rows in all"), *[pl.col(name).n_unique() for name in others])
    many = groups.filter(pl.col("rows in all") > 1)
    if many.height < _MOST * groups.height or not any(share(many[name] == 1) >= _NEARLY_ALL for name in times):
        return []
    # The last list of a sample may be cut off; the others are whole.
    differ = [name for name in others if share(many[name] == many["rows in all"]) >= _NEARLY_ALL]
    return [name for name in differ if not file.columns[name].is_unique]


def _is_place(table: pl.DataFrame, slate: str, name: str) -> bool:
    """Whole numbers from 0 or 1 without a gap, in each list."""
    number = pl.col(name).cast(pl.Int64, strict=False)
    groups = table.group_by(slate).agg(number.min().alias("first"), number.max().alias("last"), pl.len().alias("rows"))
    gapless = (pl.col("last") - pl.col("first") + 1 == pl.col("rows")) & pl.col("first").is_in([0, 1])
    return float(groups.select(gapless.mean()).item() or 0) >= _NEARLY_ALL


def _one(file: FileLook, flag: str, names: Sequence[str], what: str, choices: Choices) -> str:
    """By flag, as the only one, or by name; else a question."""
    if (given := choices.given.get(flag)) in names:
        return str(given)
    role = {"slate": "slate", "taken": "taken", "shown": "item"}[flag]
    best = names if len(names) == 1 else [name for name in names if fit(role, name) == max(map(lambda name: fit(role, name), names)) > 0]
    if len(best) == 1:
        return best[0]
    if names:
        choices.ask(f"{file.name}: more than one column may be {what}", flag, best or names)
    return ""
