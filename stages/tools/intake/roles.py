"""Which file is the log, which the items, and which column is what; a question where more than one reading is possible.

Evidence in this order: a flag, the column's name, then what the values leave possible. It is never taken where two columns have the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from stages.shared.core.errors import StageError
from stages.tools.intake.choices import Choices
from stages.tools.intake.columns import share
from stages.tools.intake.item_columns import decide_item_columns, decide_key
from stages.tools.intake.lists.columns import list_keys, log_keys
from stages.tools.intake.lists.shown import ShownLists
from stages.tools.intake.log_columns import decide_item, decide_rating, decide_time, decide_user
from stages.tools.intake.look import FileLook
from stages.tools.intake.overlay import Made
from stages.tools.intake.tables import SHARED, find_items, find_log, refuse_what_must_be_joined


@dataclass(frozen=True)
class Lists:
    """A file of lists and the keys of retrieve.given that read it. min_rating: of ingest, where the lists are the log; 0 = none."""

    file: ShownLists
    made: Made
    min_rating: int = 0


def decide_with_lists(files: Sequence[FileLook], lists: ShownLists, choices: Choices) -> tuple[FileLook | None, FileLook | None, Lists]:
    """As `decide`, beside a file of lists: what was taken of them is the log where no other table can be it."""
    others = [file for file in files if file is not lists.file]
    if "interactions" in choices.given or any(_may_be_log(file, lists) for file in others if not file.fault):
        log, items = decide(others, choices)
        users = log.columns[choices.made["user"][0]] if log and "user" in choices.made and not choices.questions else None
        return log, items, Lists(lists, list_keys(lists, users, choices) if users is not None else {})
    made = list_keys(lists, None, choices)
    if choices.questions:
        return None, None, Lists(lists, made)
    if item := choices.given.get("item"):
        raise StageError(f"--item {item}: the lists are the log, whose items --shown and --taken name")
    keys, min_rating = log_keys(lists, made, choices)
    choices.made |= keys
    ids = replace(lists.file, columns={lists.shown: lists.ids()})
    items, links = find_items(ids, [file for file in others if not file.fault], choices)
    if items is not None:
        decide_item_columns(items, decide_key(items, links, lists.shown, choices), None, choices)
    elif lists.form == "lists":
        why = f"items are all that were shown, those of '{lists.shown}'; they are called by their ids"
        choices.made |= {"items": (lists.file.name, why), "item_id": (lists.shown, why), "title": ("", why)}
    else:
        choices.take("item_id", lists.shown, "as in the log")
        decide_item_columns(lists.file, lists.shown, lists.used | {made["user"][0], made["time"][0]}, choices)
    return lists.file, items, Lists(lists, made, min_rating)


def _may_be_log(file: FileLook, lists: ShownLists) -> bool:
    """Whether ids of the lists stand in many of its rows, beside another column of ids."""
    able = [column for column in file.columns.values() if column.is_id and not column.is_unique]
    shown = lists.ids().distinct.implode()
    return len(able) > 1 and any(share(column.distinct.is_in(shown)) >= SHARED for column in able)


def decide(files: Sequence[FileLook], choices: Choices) -> tuple[FileLook | None, FileLook | None]:
    """The log and the file of items (None: there is none), with all keys of ingest.table in `choices.made`, or questions."""
    tables = [file for file in files if not file.fault]
    log = find_log(files, choices)
    if log is None:
        return None, None
    others = [file for file in tables if file is not log]
    refuse_what_must_be_joined(log, others, choices)
    items, links = find_items(log, others, choices)
    if items is None and (unread := [file.name for file in files if file.fault not in ("", "empty")]):
        value, why = choices.made["items"]
        choices.take("items", value, f"{why} ({', '.join(unread)}: not read, see above)")
    if choices.questions:
        return log, items
    item = decide_item(log, links, choices)
    taken = {item}
    time = decide_time(log, taken, choices)
    taken.add(time)
    taken.add(decide_user(log, taken, choices))
    taken.add(decide_rating(log, taken, choices))
    if items is not None:
        decide_item_columns(items, decide_key(items, links, item, choices), None, choices)
    elif item:
        choices.take("item_id", item, "as in the log")
        decide_item_columns(log, item, taken, choices)
    return log, items
