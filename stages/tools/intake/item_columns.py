"""Which columns are the items' ids, titles, brands, categories and years."""

import polars as pl

from stages.tools.intake.choices import Choices
from stages.tools.intake.columns import Column, share
from stages.tools.intake.look import FileLook
from stages.tools.intake.pick import choose, given_column, some
from stages.tools.intake.tables import Links
from stages.tools.intake.words import fit

_DEPENDS = 0.95  # of the items whose rows must agree, for a column to say something of the item
_SEPARATORS = ("|", ";", " > ", "/", ",")


def decide_key(items: FileLook, links: Links, item: str, choices: Choices) -> str:
    given = given_column("item_id", items.columns, items.name, choices)
    if given:
        return choices.take("item_id", given, "as said")
    if item in links:
        return choices.take("item_id", links[item], f"each row another value, and those of '{item}' in the log are among them")
    keys = [name for name, column in items.columns.items() if column.is_id and column.is_unique]
    choices.ask(f"{items.name}: no column holds the ids of the log", "item_id", keys or list(items.columns))
    return ""


def decide_item_columns(file: FileLook, key: str, taken: set[str] | None, choices: Choices) -> None:
    """title, brand, categories and year. taken: of a log that holds them itself; there they must be the same in all rows of an item."""
    free = [name for name in file.columns if name != key and name not in (taken or ())]
    if taken is not None:
        free = [name for name in free if depends(file.columns[name], file.columns[key])]
    words = [
        name for name in free if file.columns[name].shape == "text" and not file.columns[name].is_numeric and not file.columns[name].times
    ]
    lists = [name for name in free if file.columns[name].shape == "list"]
    several = len(file.columns[key].distinct) if key else 0

    def is_title(name: str) -> bool:
        column = file.columns[name]
        # A column 'Product' may hold ids or names: names have spaces.
        others = ("brand", "categories", *(("item",) if column.is_id else ()))
        return column.is_prose and len(column.distinct) > 0.8 * several and not any(fit(role, name) for role in others)

    title = choose("title", file, words, choices, "the only column with words that differ from item to item", is_title)
    if "title" not in choices.made and not choices.asked("title"):
        choices.take("title", "", "no column holds one: items are called by their ids")
    rest = [name for name in words if name != title]
    brand = choose("brand", file, rest, choices, "")
    categories = choose("categories", file, [name for name in [*rest, *lists] if name != brand], choices, "")
    if categories and file.columns[categories].shape == "text":
        _category_separator(file.columns[categories], choices)
    years = [name for name in free if share(file.columns[name].filled.str.contains(r"^(1[89]|20)\d\d(\.0)?$")) > 0.9]
    choose("year", file, years, choices, "")


def depends(column: Column, key: Column) -> bool:
    """Whether `column` says something of what `key` names: the same in all rows of one key."""
    table = pl.DataFrame({"key": key.values, "value": column.values}).drop_nulls()
    per_item = table.group_by("key").agg(pl.col("value").n_unique().alias("different"), pl.len().alias("rows")).filter(pl.col("rows") > 1)
    return per_item.height > 0 and share(per_item["different"] == 1) >= _DEPENDS


def _category_separator(column: Column, choices: Choices) -> None:
    if given := choices.given.get("category_separator"):
        choices.take("category_separator", given, "as said")
        return
    if column.name.endswith(":token_seq"):
        choices.take("category_separator", " ", "a token_seq of RecBole")
        return
    if column.distinct.str.starts_with("[").all():
        return
    fitting = [mark for mark in _SEPARATORS if share(column.distinct.str.contains(mark, literal=True)) > 0.1]
    if len(fitting) > 1:
        choices.ask(f"'{column.name}' ({some(column)}) can be cut at more than one character", "category_separator", fitting)
    elif fitting:
        choices.take("category_separator", fitting[0], f"in {some(column)}")
