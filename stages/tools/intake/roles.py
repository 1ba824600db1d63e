"""Which file is the log, which the items, and which column is what; a question where more than one reading is possible.

Evidence in this order: a flag, the column's name, then what the values leave possible. It is never taken where two columns have the same.
"""

from collections.abc import Sequence

from stages.tools.intake.choices import Choices
from stages.tools.intake.item_columns import decide_item_columns, decide_key
from stages.tools.intake.log_columns import decide_item, decide_rating, decide_time, decide_user
from stages.tools.intake.look import FileLook
from stages.tools.intake.tables import find_items, find_log


def decide(files: Sequence[FileLook], choices: Choices) -> tuple[FileLook | None, FileLook | None]:
    """The log and the file of items (None: there is none), with all keys of ingest.table in `choices.made`, or questions."""
    tables = [file for file in files if not file.fault]
    log = find_log(files, choices)
    if log is None:
        return None, None
    items, links = find_items(log, [file for file in tables if file is not log], choices)
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
