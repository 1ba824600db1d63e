"""Which file is the log, which the items, and which column is what; a question where more than one reading is possible.

Evidence in this order: a flag, the column's name, then what the values leave possible. It is never taken where two columns have the same.
"""

from collections.abc import Callable, Sequence

import polars as pl

from stages.shared.core.errors import StageError
from stages.tools.intake.choices import NONE, Choices
from stages.tools.intake.columns import Column, share
from stages.tools.intake.look import FileLook
from stages.tools.intake.words import fit

_SHARED = 0.5  # of a column's values that must stand in another, for the two to hold the same ids
_DEPENDS = 0.95  # of the items whose rows must agree, for a column to say something of the item
_SEPARATORS = ("|", ";", " > ", "/", ",")


def decide(files: Sequence[FileLook], choices: Choices) -> tuple[FileLook | None, FileLook | None]:
    """The log and the file of items (None: there is none), with all keys of ingest.table in `choices.made`, or questions."""
    tables = [file for file in files if not file.fault]
    log = _log(tables, choices)
    if log is None:
        return None, None
    items, links = _items(log, [file for file in tables if file is not log], choices)
    if choices.questions:
        return log, items
    item = _item(log, links, choices)
    taken = {item}
    time = _time(log, taken, choices)
    taken.add(time)
    taken.add(_user(log, taken, choices))
    taken.add(_rating(log, taken, choices))
    if items is not None:
        _item_columns(items, _item_key(items, links, item, choices), None, choices)
    elif item:
        choices.take("item_id", item, "as in the log")
        _item_columns(log, item, taken, choices)
    return log, items


def _given(flag: str, columns: dict[str, Column], file: str, choices: Choices) -> str | None:
    """The value of a flag that names a column; "" where it is none, None where it was not given."""
    value = choices.given.get(flag)
    if value is None or value == NONE:
        return None if value is None else ""
    if value not in columns:
        raise StageError(f"--{flag.replace('_', '-')} {value}: {file} has no such column (it has: {', '.join(columns)})")
    return value


def _log(tables: Sequence[FileLook], choices: Choices) -> FileLook | None:
    if name := choices.given.get("interactions"):
        chosen = next((file for file in tables if file.name == name), None)
        if chosen is None:
            raise StageError(f"--interactions {name}: no table of that name (tables here: {', '.join(file.name for file in tables) or 'none'})")
        choices.take("interactions", name, "as said")
        return chosen
    # A log has columns whose values stand in many rows; a catalogue, one row an item.
    able = [file for file in tables if sum(column.is_id and not column.is_unique for column in file.columns.values()) >= 2]
    refers = [
        file
        for file in able
        if any(_links(file, other) for other in tables if other is not file)
        and not any(_links(other, file) for other in tables if other is not file)
    ]
    with_time = [file for file in able if any(column.times for column in file.columns.values())]
    no_key = [file for file in able if not any(column.is_id and column.is_unique for column in file.columns.values())]
    for group, why in (
        (able, "the only table with two columns of ids that repeat"),
        (refers, "its ids repeat, and are the keys of another table"),
        (with_time, "of the tables with ids that repeat, the one with times"),
        (no_key, "of the tables with ids that repeat, the one where all do"),
    ):
        if len(group) == 1:
            choices.take("interactions", group[0].name, why)
            return group[0]
    if not able:
        shown = ", ".join(file.name for file in tables) or "none"
        raise StageError(f"no file has two columns of ids that repeat, as a log of who took what has (tables here: {shown})")
    choices.ask("more than one file may be the log", "interactions", [file.name for file in able])
    return None


Links = dict[str, str]  # column of the log -> column of the file of items with the same ids


def _items(log: FileLook, others: Sequence[FileLook], choices: Choices) -> tuple[FileLook | None, Links]:
    name = choices.given.get("items")
    if name == NONE:
        choices.take("items", "", "as said: what is known of items stands in the log")
        return None, {}
    if name:
        chosen = next((file for file in others if file.name == name), None)
        if chosen is None:
            raise StageError(f"--items {name}: no table of that name beside the log (there are: {', '.join(file.name for file in others) or 'none'})")
        choices.take("items", name, "as said")
        return chosen, _links(log, chosen)
    linked = {file.name: (file, links) for file in others if (links := _links(log, file))}
    # A table of users has their ids; one that can only belong to the column of users is none of items.
    of_items = {
        name: (file, links) for name, (file, links) in linked.items() if not all(fit("user", column) or fit("user", key) for column, key in links.items())
    }
    if len(of_items) == 1:
        file, links = next(iter(of_items.values()))
        choices.take("items", file.name, f"its column '{next(iter(links.values()))}' holds ids of the log, each once")
        return file, links
    if of_items:
        choices.ask("more than one file may be that of items", "items", [*of_items, NONE])
        return None, {}
    why = "no other table holds ids of the log" if others else "there is no other table"
    choices.take("items", "", f"{why}: items are those of the log")
    return None, {}


def _links(log: FileLook, file: FileLook) -> Links:
    """Keys of `file` (a value in each row, each once) that a column of ids of the log refers to."""
    keys = [key for key, values in file.columns.items() if values.is_id and values.is_unique]
    # One name in both files is meant; numbers from 1 would stand in any column of numbers.
    if namesakes := [key for key in keys if key in log.columns and not log.columns[key].is_unique]:
        return {key: key for key in namesakes}
    links: Links = {}
    for name, column in log.columns.items():
        if not column.is_id or column.is_unique:
            continue
        shares = {key: share(column.distinct.is_in(file.columns[key].values.implode())) for key in keys}
        best = max(shares, key=lambda key: shares[key], default=None)
        if best and shares[best] >= _SHARED:
            links[name] = best
    return links


def _choose(
    role: str, file: FileLook, candidates: Sequence[str], choices: Choices, rest: str, by_rest: Callable[[str], bool] | None = None
) -> str:
    """The column of `role` among `candidates`: by its name, else (by_rest) as the only one that can be. "" where there is none, or a question."""
    given = _given(role, file.columns, file.name, choices)
    if given is not None:
        return choices.take(role, given, "as said")
    scores = {name: fit(role, name) for name in candidates}
    best = [name for name, score in scores.items() if score and score == max(scores.values())]
    if len(best) == 1:
        return choices.take(role, best[0], f"by its name; {file.columns[best[0]].describe()}")
    possible = best or [name for name in candidates if by_rest is not None and by_rest(name)]
    if not best and len(possible) == 1:
        return choices.take(role, possible[0], rest)
    if possible:
        choices.ask(f"{file.name}: more than one column may be the {role}", role, possible)
    return ""


def _item(log: FileLook, links: Links, choices: Choices) -> str:
    """By the file of items, which has its ids; else by name, or as what the user leaves over."""
    named = [name for name in links if fit("item", name)]
    able = [name for name in links if not fit("user", name)] if links else []
    if "item" not in choices.given and len(chosen := named or able) == 1:
        return choices.take("item", chosen[0], f"its values are those of '{links[chosen[0]]}' in the file of items")
    users = [name for name, column in log.columns.items() if column.is_id and not column.is_unique and fit("user", name)]
    candidates = list(links) or [name for name, column in log.columns.items() if _may_be_id(column) and name not in users]

    def is_left(name: str) -> bool:
        known = bool(users or links or choices.given.get("user"))
        return known and not _is_few(log.columns[name]) and name != choices.given.get("user")

    item = _choose("item", log, candidates, choices, "the only column of ids beside the user's", is_left)
    if not item and not choices.asked("item"):
        choices.ask(f"{log.name}: no name says which column is the item", "item", candidates or list(log.columns))
    return item


def _user(log: FileLook, taken: set[str], choices: Choices) -> str:
    candidates = [name for name, column in log.columns.items() if _may_be_id(column) and name not in taken]
    user = _choose("user", log, candidates, choices, "the only column of ids left", lambda name: bool(taken) and "item" in choices.made and not _is_few(log.columns[name]))
    if not user and not choices.asked("user"):
        choices.ask(f"{log.name}: no name says which column is the user", "user", candidates or list(log.columns))
    return user


def _may_be_id(column: Column) -> bool:
    return column.is_id and not column.is_unique and not column.times


def _is_few(column: Column) -> bool:
    """A handful of numbers, as ratings and amounts are; only a name makes ids of them."""
    return column.is_numeric and len(column.distinct) <= 11


def _time(log: FileLook, taken: set[str], choices: Choices) -> str:
    readable = {name: column.times for name, column in log.columns.items() if name not in taken and column.times}
    given = _given("timestamp", log.columns, log.name, choices)
    if given == "":
        choices.take("timestamp", "", "as said: the order of the file counts")
        return ""
    by_name = [name for name in log.columns if name not in taken and fit("timestamp", name)]
    candidates = [name for name in readable if name in by_name] or list(readable)
    best = [name for name in candidates if fit("timestamp", name) == max(map(lambda other: fit("timestamp", other), candidates))]
    if given is None and len(best) > 1:
        choices.ask(f"{log.name}: more than one column holds times", "timestamp", best)
        return ""
    if given is None and not best:
        unread = f"; '{by_name[0]}' is called like one, and its values ({_some(log.columns[by_name[0]])}) have no form known here" if by_name else ""
        choices.ask(f"{log.name}: no column can be read as times{unread}", "timestamp", [*by_name, NONE])
        return ""
    time = given or best[0]
    _unit(time, log.columns[time], choices)
    return choices.take("timestamp", time, "as said" if given else f"the only column of times{' by its name' if len(readable) > 1 else ''}; {_some(log.columns[time])}")


def _unit(name: str, column: Column, choices: Choices) -> None:
    unit, form = choices.given.get("time_unit"), choices.given.get("time_format")
    if unit or form:
        choices.take("time_unit", unit or "s", "as said")
        choices.take("time_format", form or "", "as said")
    elif len(column.times) == 1:
        choices.take("time_unit", column.times[0].unit, column.times[0].why)
        choices.take("time_format", column.times[0].form, column.times[0].why)
    elif column.times and all(reading.form for reading in column.times):
        choices.ask(f"'{name}' ({_some(column)}) can be read in more than one way", "time_format", [r.form for r in column.times])
    elif column.is_numeric:
        choices.ask(f"'{name}' ({_some(column)}) holds no times since 1970 of our days; s keeps their order", "time_unit", ["s", "ms", "us", "ns"])
    else:
        choices.ask(f"'{name}' ({_some(column)}) has no form known here", "time_format", ["PATTERN"])


def _some(column: Column) -> str:
    return ", ".join(column.distinct[:3].to_list())[:80]


def _rating(log: FileLook, taken: set[str], choices: Choices) -> str:
    return _choose("rating", log, [name for name, column in log.columns.items() if column.is_numeric and name not in taken], choices, "")


def _item_key(items: FileLook, links: Links, item: str, choices: Choices) -> str:
    given = _given("item_id", items.columns, items.name, choices)
    if given:
        return choices.take("item_id", given, "as said")
    if item in links:
        return choices.take("item_id", links[item], f"each row another value, and those of '{item}' in the log are among them")
    keys = [name for name, column in items.columns.items() if column.is_id and column.is_unique]
    choices.ask(f"{items.name}: no column holds the ids of the log", "item_id", keys or list(items.columns))
    return ""


def _item_columns(file: FileLook, key: str, taken: set[str] | None, choices: Choices) -> None:
    """title, brand, categories and year. taken: of a log that holds them itself; there they must be the same in all rows of an item."""
    free = [name for name in file.columns if name != key and name not in (taken or ())]
    if taken is not None:
        free = [name for name in free if _depends(file.columns[name], file.columns[key])]
    words = [name for name in free if file.columns[name].shape == "text" and not file.columns[name].is_numeric and not file.columns[name].times]
    lists = [name for name in free if file.columns[name].shape == "list"]
    several = len(file.columns[key].distinct) if key else 0

    def is_title(name: str) -> bool:
        column = file.columns[name]
        return column.is_prose and len(column.distinct) > 0.8 * several and not any(fit(role, name) for role in ("brand", "categories", "item"))

    title = _choose("title", file, words, choices, "the only column with words that differ from item to item", is_title)
    if "title" not in choices.made and not choices.asked("title"):
        choices.take("title", "", "no column holds one: items are called by their ids")
    rest = [name for name in words if name != title]
    brand = _choose("brand", file, rest, choices, "")
    categories = _choose("categories", file, [name for name in [*rest, *lists] if name != brand], choices, "")
    if categories and file.columns[categories].shape == "text":
        _category_separator(file.columns[categories], choices)
    years = [name for name in free if share(file.columns[name].filled.str.contains(r"^(1[89]|20)\d\d(\.0)?$")) > 0.9]
    _choose("year", file, years, choices, "")


def _depends(column: Column, key: Column) -> bool:
    table = pl.DataFrame({"key": key.values, "value": column.values}).drop_nulls()
    per_item = table.group_by("key").agg(pl.col("value").n_unique().alias("different"), pl.len().alias("rows")).filter(pl.col("rows") > 1)
    return per_item.height > 0 and share(per_item["different"] == 1) >= _DEPENDS


def _category_separator(column: Column, choices: Choices) -> None:
    if given := choices.given.get("category_separator"):
        choices.take("category_separator", given, "as said")
        return
    if column.distinct.str.starts_with("[").all():
        return
    fitting = [mark for mark in _SEPARATORS if share(column.distinct.str.contains(mark, literal=True)) > 0.1]
    if len(fitting) > 1:
        choices.ask(f"'{column.name}' ({_some(column)}) can be cut at more than one character", "category_separator", fitting)
    elif fitting:
        choices.take("category_separator", fitting[0], f"in {_some(column)}")
