"""Which columns of the log are user, item, time and rating."""

from stages.tools.intake.choices import NONE, Choices
from stages.tools.intake.columns import Column
from stages.tools.intake.item_columns import depends
from stages.tools.intake.look import FileLook
from stages.tools.intake.pick import choose, given_column, some
from stages.tools.intake.tables import Links
from stages.tools.intake.words import fit


def decide_item(log: FileLook, links: Links, choices: Choices) -> str:
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

    item = choose("item", log, candidates, choices, "the only column of ids beside the user's", is_left)
    if not item and not choices.asked("item"):
        _ask("item", log, candidates or list(log.columns), choices)
    return item


def decide_user(log: FileLook, taken: set[str], choices: Choices) -> str:
    item = log.columns.get(choices.made.get("item", ("", ""))[0])
    # What is the same in all rows of an item says something of the item: its department.
    of_item = {name for name, column in log.columns.items() if item is not None and depends(column, item)}
    candidates = [name for name, column in log.columns.items() if _may_be_id(column) and name not in taken | of_item]
    user = choose(
        "user",
        log,
        candidates,
        choices,
        "the only column of ids left",
        lambda name: bool(taken) and "item" in choices.made and not _is_few(log.columns[name]),
    )
    if not user and not choices.asked("user"):
        _ask("user", log, candidates or list(log.columns), choices)
    return user


def _ask(role: str, log: FileLook, candidates: list[str], choices: Choices) -> None:
    columns = [log.columns[name] for name in candidates]
    holds = "; ".join(f"{column.name}: {len(column.distinct):,} different, as {some(column)}" for column in columns)
    choices.ask(f"{log.name}: no name says which column is the {role} ({holds})", role, candidates)


def _may_be_id(column: Column) -> bool:
    return column.is_id and not column.is_unique and not column.times


def _is_few(column: Column) -> bool:
    """A handful of numbers, as ratings and amounts are; only a name makes ids of them."""
    return column.is_numeric and len(column.distinct) <= 11


def decide_time(log: FileLook, taken: set[str], choices: Choices) -> str:
    given = given_column("timestamp", log.columns, log.name, choices)
    if given == "":
        return choices.take("timestamp", "", "as said: the order of the file counts")
    if given:
        _decide_unit(given, log.columns[given], choices)
        return choices.take("timestamp", given, "as said")
    free = [name for name in log.columns if name not in taken]
    readable = [name for name in free if log.columns[name].times]
    named = {name: score for name in free if (score := fit("timestamp", name))}
    candidates = [name for name in readable if name in named] or readable or list(named)
    best = [name for name in candidates if named.get(name, 0) == max(named.get(other, 0) for other in candidates)]
    if len(best) == 1:
        why = "the only column of times" if len(readable) == 1 else "by its name"
        _decide_unit(best[0], log.columns[best[0]], choices)
        clock = next((name for name in free if name != best[0] and log.columns[name].is_clock), "")
        days = f"; '{clock}' has the time of day and is NOT read: put both into one column" if clock else ""
        return choices.take("timestamp", best[0], f"{why}; {some(log.columns[best[0]])}{days}")
    choices.ask(f"{log.name}: {'more than one column holds' if best else 'no column can be read as'} times", "timestamp", [*best, NONE])
    return ""


def _decide_unit(name: str, column: Column, choices: Choices) -> None:
    unit, form = choices.given.get("time_unit"), choices.given.get("time_format")
    forms = [reading.form for reading in column.times]
    if unit or form:
        choices.take("time_unit", unit or "s", "as said")
        choices.take("time_format", form or "", "as said")
    elif len(forms) == 1:
        choices.take("time_unit", column.times[0].unit, column.times[0].why)
        choices.take("time_format", column.times[0].form, column.times[0].why)
    elif forms and all(forms):
        choices.ask(f"'{name}' ({some(column)}) can be read in more than one way", "time_format", forms)
    elif column.is_numeric:
        what = (
            f"'{name}' ({some(column)}) holds no times of 1990 to 2040 since 1970; s keeps their order, --timestamp none that of the file"
        )
        choices.ask(what, "time_unit", ["s", "ms", "us", "ns"])
    else:
        what = f"'{name}' ({some(column)}) has no form known here; --timestamp none takes the order of the file"
        choices.ask(what, "time_format", ["PATTERN"])


def decide_rating(log: FileLook, taken: set[str], choices: Choices) -> str:
    rating = choose("rating", log, [name for name, column in log.columns.items() if column.is_numeric and name not in taken], choices, "")
    given = choices.given.get("decimal")
    if given:
        choices.take("decimal", given, "as said")
    elif rating and log.columns[rating].has_decimal_commas:
        choices.take("decimal", ",", f"in {some(log.columns[rating])}")
    return rating
