"""Which file is the log, and which one holds the items."""

from collections.abc import Sequence

from stages.shared.core.errors import StageError
from stages.tools.intake.choices import NONE, Choices
from stages.tools.intake.columns import share
from stages.tools.intake.look import FileLook
from stages.tools.intake.words import fit

SHARED = 0.5  # of a column's values that must stand in another, for the two to hold the same ids


Links = dict[str, str]  # column of the log -> column of the file of items with the same ids


def find_log(files: Sequence[FileLook], choices: Choices) -> FileLook | None:
    tables = [file for file in files if not file.fault]
    if name := choices.given.get("interactions"):
        chosen = next((file for file in tables if file.name == name), None)
        if chosen is None:
            raise StageError(
                f"--interactions {name}: no table of that name (tables here: {', '.join(file.name for file in tables) or 'none'})"
            )
        choices.take("interactions", name, "as said")
        return chosen
    # A log has columns whose values stand in many rows; a catalogue, one row an item.
    able = [file for file in tables if sum(column.is_id and not column.is_unique for column in file.columns.values()) >= 2]
    refers = [
        file
        for file in able
        if any(links_of(file, other) for other in tables if other is not file)
        and not any(links_of(other, file) for other in tables if other is not file)
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
        shown = "".join(f"\n  {file}" for file in files)
        raise StageError(f"no table has two columns of ids that repeat, as a log of who took what has:{shown}")
    choices.ask("more than one file may be the log", "interactions", [file.name for file in able])
    return None


def find_items(log: FileLook, others: Sequence[FileLook], choices: Choices) -> tuple[FileLook | None, Links]:
    name = choices.given.get("items")
    if name == NONE:
        choices.take("items", "", "as said: what is known of items stands in the log")
        return None, {}
    if name:
        chosen = next((file for file in others if file.name == name), None)
        if chosen is None:
            raise StageError(
                f"--items {name}: no table of that name beside the log (there are: {', '.join(file.name for file in others) or 'none'})"
            )
        choices.take("items", name, "as said")
        return chosen, links_of(log, chosen)
    linked = {file.name: (file, links) for file in others if (links := links_of(log, file))}
    # A table of users has their ids; one that can only belong to the column of users is none of items.
    of_items = {
        name: (file, links)
        for name, (file, links) in linked.items()
        if not all(fit("user", column) or fit("user", key) for column, key in links.items())
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


def refuse_what_must_be_joined(log: FileLook, others: Sequence[FileLook], choices: Choices) -> None:
    """StageError where `log` says what was taken and another table by whom, as the lines of orders beside the orders."""
    if choices.given.get("user") or any(fit("user", name) for name in log.columns):
        return
    for file in others:
        for column, key in links_of(log, file).items():
            users = [name for name in file.columns if name != key and fit("user", name) and not file.columns[name].is_unique]
            if users and not fit("item", column):
                on = f"on='{key}'" if column == key else f"left_on='{column}', right_on='{key}'"
                command = f"import polars as pl; {_reads(log)}.join({_reads(file)}, {on}).write_csv('log.csv')"
                raise StageError(
                    f"{log.name} says what was taken, and {file.name} by whom ('{users[0]}'), for each '{key}'; one table is read. Put "
                    f'them together, python -c "{command}", and take both out of the folder; or say --user COLUMN of {log.name}'
                )


def _reads(file: FileLook) -> str:
    """Polars' call, with all columns of a text file as text: ids keep their zeros."""
    if file.form == "Parquet":
        return f"pl.read_parquet('{file.name}')"
    if file.form == "JSON lines":
        return f"pl.read_ndjson('{file.name}')"
    return f"pl.read_csv('{file.name}', separator='{file.separator}', infer_schema=False)".replace("\t", "\\t")


def links_of(log: FileLook, file: FileLook) -> Links:
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
        if best and shares[best] >= SHARED:
            links[name] = best
    return links
