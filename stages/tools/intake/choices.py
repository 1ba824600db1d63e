"""What whoever calls `gr2 init` has decided, and what is left to ask."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

NONE = "none"  # as a value of a flag: there is no such column or file
# flag -> what it decides; those before `lists` are keys of ingest.table of that name
FLAGS = {
    "interactions": "the file of the log",
    "items": f"the file of items; {NONE}: what is known of items stands in the log",
    "user": "column of the log: who",
    "item": "column of the log: took what",
    "timestamp": f"column of the log: when; {NONE}: the order of the file",
    "time_unit": "of times that are numbers: s, ms, us or ns",
    "time_format": "of times that are text: iso, or a pattern as %%d.%%m.%%Y",
    "rating": f"column of the log; {NONE}: no ratings",
    "decimal": "of numbers that are text: . or , (4,5)",
    "item_id": "column of the file of items: the ids that the log has",
    "title": f"column of items; {NONE}: items have no titles",
    "brand": f"column of items, or {NONE}",
    "categories": f"column of items, or {NONE}",
    "category_separator": "between the categories of a text",
    "year": f"column of items, or {NONE}",
    "separator": "between the columns of text files",
    "encoding": "of text files: utf-8 or latin-1",
    "lists": f"the file of lists that were shown; {NONE}: there is none",
    "shown": "column of lists: the items shown, or with --slate the item",
    "taken": "column of lists: what of them was taken",
    "slate": "column of lists: which list a row belongs to, where a row is one shown item",
    "place": "column of lists: the item's place in its list",
    "grades": f"column of lists: what each of the taken was worth, or {NONE}",
    "list_separator": "between the ids of a list that is text",
    "lists_user": "column of lists: to whom",
    "lists_time": "column of lists: when",
    "order": "of the items of a list: shown (as users saw them) or shuffled",
    "missing_items": "items of the log that the file of items lacks, or that have no title there: id or drop",
    "max_bad_share": "of the rows of a file that may be left out because they cannot be used (default: 0.01)",
    "licence": "a sentence for the data card",
    "category": "of Amazon's files, where the folder holds several",
    "name": "of the profile (default: the folder's name)",
}

LIST_FLAGS = ("shown", "taken", "slate", "place", "grades", "list_separator", "lists_user", "lists_time", "order")
TABLE_KEYS = ("interactions", "items", "user", "item", "item_separator", *[*FLAGS][4 : [*FLAGS].index("encoding") + 1])  # as they are told


@dataclass(frozen=True)
class OpenQuestion:
    """Two readings are possible, or none: `flags` are the answers, each as it is typed."""

    what: str
    flags: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.what}; say {' or '.join(self.flags)}"


@dataclass
class Choices:
    """`given`: flag -> value. `questions`: what could not be decided without a flag. `made`: key of ingest.table -> (value, why)."""

    given: dict[str, str]
    questions: list[OpenQuestion] = field(default_factory=list)
    made: dict[str, tuple[str, str]] = field(default_factory=dict)

    def ask(self, what: str, flag: str, values: Sequence[str]) -> None:
        self.questions.append(OpenQuestion(what, tuple(as_typed(flag, value) for value in values)))

    def asked(self, flag: str) -> bool:
        return any(question.flags[0].startswith(f"--{flag.replace('_', '-')} ") for question in self.questions)

    def take(self, key: str, value: str, why: str) -> str:
        self.made[key] = (value, why)
        return value


def as_typed(flag: str, value: str) -> str:
    """`--flag value`, as a shell reads it."""
    return f"--{flag.replace('_', '-')} {shlex.quote(value)}"
