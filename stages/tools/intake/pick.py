"""The column for a role: by a flag, by its name, else by what the values leave possible; a question where two have the same evidence."""

from collections.abc import Callable, Sequence

from stages.shared.core.errors import StageError
from stages.tools.intake.choices import NONE, Choices
from stages.tools.intake.columns import Column
from stages.tools.intake.look import FileLook
from stages.tools.intake.words import fit

NEEDED = ("user", "item", "item_id")  # columns without which nothing can be read


def given_column(flag: str, columns: dict[str, Column], file: str, choices: Choices) -> str | None:
    """The value of a flag that names a column; "" where it is none, None where it was not given."""
    value = choices.given.get(flag)
    if value is None:
        return None
    if value == NONE and flag not in NEEDED:
        return ""
    if value not in columns:
        raise StageError(f"--{flag.replace('_', '-')} {value}: {file} has no such column (it has: {', '.join(columns)})")
    return value


def choose(
    role: str, file: FileLook, candidates: Sequence[str], choices: Choices, rest: str, by_rest: Callable[[str], bool] | None = None
) -> str:
    """The column of `role` among `candidates`: by its name, else (by_rest) as the only one that can be. "": none, or a question."""
    given = given_column(role, file.columns, file.name, choices)
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


def some(column: Column) -> str:
    return ", ".join(column.distinct[:3].to_list())[:80]
