"""The other columns of a file of lists, and the keys of retrieve.given and of ingest.table that read it."""

from collections.abc import Mapping

from stages.ingest.readers.times import ISO
from stages.ingest.sources.table import separator_of
from stages.shared.core.errors import StageError
from stages.shared.sources.flags import NO, YES
from stages.tools.intake.choices import Choices
from stages.tools.intake.columns import Column, TimeReading, share
from stages.tools.intake.lists.shown import ShownLists, cells_of
from stages.tools.intake.look import FileLook
from stages.tools.intake.overlay import Made
from stages.tools.intake.pick import some
from stages.tools.intake.tables import SHARED
from stages.tools.intake.words import fit

ORDER = ("shown", "shuffled")


def list_keys(lists: ShownLists, users: Column | None, choices: Choices) -> Made:
    """Of retrieve.given. users: the log's column, where there is another log. Asks by `choices` what the file does not say."""
    made: Made = {}
    columns = lists.file.columns
    if user := _user(lists, users, choices):
        made["user"] = user
    # Where the lists are the log, its flags mean them.
    flag = "timestamp" if users is None and "lists_time" not in choices.given else "lists_time"
    if time := _time(lists, {made["user"][0]} if user else set(), flag, choices):
        reading = _reading(lists.file, time, choices)
        made["time"] = (time, f"{some(columns[time])}; {reading.why}" if reading else "")
        if reading and reading.form not in ("", ISO):
            made["time_format"] = (reading.form, reading.why)
        elif reading and not reading.form and columns[time].shape != "time":
            made["time_unit"] = (reading.unit, reading.why)
    if lists.slate:
        made["slate"] = (lists.slate, "rows of one value are one list")
        made["place"] = (lists.place, "whole numbers without a gap in each list" if lists.place else "none: rows stand as they were shown")
    made["candidates"] = (lists.shown, lists.why)
    made["taken"] = (lists.taken, "as in the column of candidates: behind each id" if lists.form == "marks" else some(columns[lists.taken]))
    if grades := _grades(lists, {value for value, _ in made.values()}, choices):
        made["grades"] = grades
    if lists.separator:
        made["separator"] = (lists.separator, "it cuts the cells into ids")
    if lists.file.separator not in ("", separator_of(lists.file.first) or ","):
        made["column_separator"] = (lists.file.separator, "it cuts all lines alike")
    if order := _order(lists, choices):
        made["order"] = order
    return made


def log_keys(lists: ShownLists, made: Mapping[str, tuple[str, str]], choices: Choices) -> tuple[Made, int]:
    """Of ingest.table, where what was taken from the lists is all that is known of users; and ingest.min_rating."""
    file, why = lists.file, "what was taken of the lists: there is no other log"
    if lists.form == "marks":
        raise StageError(
            f"{file.name}: holds lists with marks, and no file here says when a user took what, which ingest reads; add such a log, or "
            f"write the taken ids of '{lists.shown}' into a column of their own"
        )
    keys: Made = {"interactions": (file.name, why), "user": made["user"], "timestamp": made["time"]}
    if reading := _reading(file, made["time"][0], choices):
        keys |= {"time_unit": (reading.unit, reading.why), "time_format": (reading.form, reading.why)}
    if lists.form == "lists":
        keys |= {"item": (lists.taken, why), "item_separator": (lists.separator or " ", "each of them is an interaction")}
        return keys, 0
    taken = file.columns[lists.taken]
    if empty := len(taken.values) - len(taken.filled):
        # A row without a rating stays in the log.
        raise StageError(
            f"{file.name}: '{lists.taken}' is empty in {empty:,} of the first {len(taken.values):,} rows; where the lists are the only log "
            "it must say of each row whether it was taken: write 0 there, or add a log"
        )
    if wrong := [value for value in taken.distinct if value.lower() not in (*YES, *NO) and not value.isdecimal()]:
        raise StageError(
            f"{file.name}: '{lists.taken}' holds {wrong[0]!r}; where the lists are the only log it must be 1 or 0 (or true, yes), or a "
            "grade: write it so, or add a log"
        )
    return keys | {"item": (lists.shown, why), "rating": (lists.taken, "1 where it was taken: with min_rating 1 these are the log")}, 1


def _user(lists: ShownLists, users: Column | None, choices: Choices) -> tuple[str, str] | None:
    file, flag = lists.file, "lists_user"
    if given := choices.given.get(flag) or (choices.given.get("user") if users is None else None):
        return _known(file, flag, given), "as said"
    able = [name for name, column in file.columns.items() if column.is_id and not column.times and name not in lists.used]
    if users is not None:
        able = [name for name in able if share(file.columns[name].distinct.is_in(users.distinct.implode())) >= SHARED]
        why = f"its values are those of '{users.name}' in the log"
    else:
        able = [name for name in able if not file.columns[name].is_unique]
        why = "by its name"
    named = [name for name in able if fit("user", name)]
    best = able if len(able) == 1 else named
    if len(best) == 1:
        return best[0], why if users is not None or named else "the only column of ids left"
    choices.ask(f"{file.name}: {'more than one' if able else 'no'} column may be the user's", flag, best or able or [*file.columns])
    return None


def _time(lists: ShownLists, taken: set[str], flag: str, choices: Choices) -> str:
    file = lists.file
    if given := choices.given.get(flag):
        return _known(file, flag, given)
    able = [name for name, column in file.columns.items() if column.times and name not in lists.used | taken]
    named = [name for name in able if fit("timestamp", name)]
    if len(best := named if len(able) > 1 else able) == 1:
        return best[0]
    what = f"{file.name}: {'more than one' if able else 'no'} column says when a list was shown"
    choices.ask(what, flag, best or able or [*file.columns])
    return ""


def _reading(file: FileLook, name: str, choices: Choices) -> TimeReading | None:
    """How the column is read as times; None after a question."""
    readings = file.columns[name].times
    said = [reading for reading in readings if reading.form and reading.form == choices.given.get("time_format")]
    said = said or [reading for reading in readings if not reading.form and reading.unit == choices.given.get("time_unit")]
    if len(readings := said or readings) == 1:
        return readings[0]
    what = f"{file.name}: '{name}' ({some(file.columns[name])}) can be read in more than one way"
    if readings and all(reading.form for reading in readings):
        choices.ask(what, "time_format", [reading.form for reading in readings])
    else:
        choices.ask(what, "time_unit", [reading.unit for reading in readings] or ["s", "ms", "us", "ns"])
    return None


def _grades(lists: ShownLists, used: set[str], choices: Choices) -> tuple[str, str] | None:
    """Only a name makes grades of numbers; as many of them as were taken."""
    if given := choices.given.get("grades"):
        return None if given == "none" else (_known(lists.file, "grades", given), "as said")
    if lists.form == "marks":
        return None
    taken = cells_of(lists.file.columns[lists.taken], lists.separator or " ") if lists.form == "lists" else []
    for name, column in lists.file.columns.items():
        if name in used or not fit("grades", name):
            continue
        cells = cells_of(column, lists.separator or " ")
        if not all(entry.isdecimal() and int(entry) <= 10 for cell in cells for entry in cell):
            continue
        if lists.form == "rows" or [*map(len, cells)] == [*map(len, taken)]:
            return name, "by its name; whole numbers, as many as were taken"
    return None


def _order(lists: ShownLists, choices: Choices) -> tuple[str, str] | None:
    if (given := choices.given.get("order")) in ORDER:
        return given, "as said"
    if lists.place:
        return "shown", f"'{lists.place}' says it"
    what = f"{lists.file.name}: whether the items of a list stand in the order in which users saw them cannot be told from the file"
    choices.ask(what, "order", ORDER)
    return None


def _known(file: FileLook, flag: str, name: str) -> str:
    if name not in file.columns:
        raise StageError(f"--{flag.replace('_', '-')} {name}: {file.name} has no such column (it has: {', '.join(file.columns)})")
    return name
