"""gr2 init: what the files of a folder are, and the profile that ingests them; stages/tools/intake looks at them."""

import argparse
from pathlib import Path

from flows.commands import add_json_option, as_flags, run_tool

# Passed on as they are: the tool knows what they may be.
OPTIONS = {
    "interactions": "the file of the log",
    "items": "the file of items; none: what is known of items stands in the log",
    "user": "column of the log: who",
    "item": "column of the log: took what",
    "timestamp": "column of the log: when; none: the order of the file",
    "time-unit": "of times that are numbers: s, ms, us or ns",
    "time-format": "of times that are text: iso, or a pattern as %%d.%%m.%%Y",
    "rating": "column of the log; none: no ratings",
    "decimal": "of numbers that are text: . or , (4,5)",
    "item-id": "column of the file of items: the ids that the log has",
    "title": "column of items; none: items have no titles",
    "brand": "column of items, or none",
    "categories": "column of items, or none",
    "category-separator": "between the categories of a text",
    "year": "column of items, or none",
    "separator": "between the columns of text files",
    "encoding": "of text files: utf-8 or latin-1",
    "lists": "the file of lists that were shown; none: there is none",
    "shown": "column of lists: the items shown, or with --slate the item",
    "taken": "column of lists: what of them was taken",
    "slate": "column of lists: which list a row belongs to, where a row is one shown item",
    "place": "column of lists: the item's place in its list",
    "grades": "column of lists: what each of the taken was worth, or none",
    "list-separator": "between the ids of a list that is text",
    "lists-user": "column of lists: to whom",
    "lists-time": "column of lists: when",
    "order": "of the items of a list: shown (as users saw them) or shuffled",
    "missing-items": "items of the log that the file of items lacks, or that have no title there: id or drop",
    "max-bad-share": "of the rows of a file that may be left out because they cannot be used (default: 0.01)",
    "licence": "a sentence for the data card",
    "category": "of Amazon's files, where the folder holds several",
    "name": "of the profile (default: the folder's name)",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="where the log lies, and what is known of the items")
    for name, text in OPTIONS.items():
        parser.add_argument(f"--{name}", dest=name, help=text)
    add_json_option(parser)


def execute(options: argparse.Namespace, cwd: Path) -> int:
    """Exit code 2 where more than one reading is possible, 1 where the data cannot be read."""
    return run_tool(
        "init",
        *as_flags(options, OPTIONS),
        *(["--json"] if options.json else []),
        "--",
        str(cwd / options.folder),
        package="stages.tools.intake",
    )
