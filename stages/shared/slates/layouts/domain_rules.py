"""Rules of the domain as data (data/retrieve/domain_rules.json), and as lines of a prompt."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA
from stages.shared.slates.layouts.outside_text import quoted
from stages.shared.slates.prompt_params import PromptParams

FILE = DATA / "retrieve/domain_rules.json"
NAME_CHARACTERS = 60  # of a category


@dataclass(frozen=True)
class Follows:
    """Items of the kind `after` were taken right after one of `before` in `pairs` cases, `times` as often as after any item."""

    before: str
    after: str
    times: float
    pairs: int


@dataclass(frozen=True)
class Holds:
    """All kinds, or the commonest, that stand in `category`, and how many items it holds."""

    category: str
    kinds: list[str]
    items: int


@dataclass(frozen=True)
class Rules:
    """Each list with the most telling rule first."""

    follows: list[Follows]
    holds: list[Holds]

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def lines(self, most: int) -> Iterator[str]:
        """At most `most` of each sort."""
        for held in self.holds[:most]:
            yield f"{_name(held.category)}: {', '.join(map(_name, held.kinds))}"
        for pair in self.follows[:most]:
            yield f"{_name(pair.before)} -> {_name(pair.after)} ({pair.times:.1f} times as often as elsewhere)"


def read_rules(path: Path = FILE) -> Rules:
    try:
        rules = json.loads(path.read_text(encoding="utf-8"))
        return Rules([Follows(**rule) for rule in rules["follows"]], [Holds(**rule) for rule in rules["holds"]])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(f"{path}: cannot be read ({error}); rerun: gr2 run retrieve") from None


def with_mined_rules(options: PromptParams) -> PromptParams:
    """`options` with the mined lines behind those given by hand, where the layout says what is known of the domain."""
    if not options.domain_rules or options.layout != "chat":
        return options
    return options.model_copy(update={"domain": [*options.domain, *read_rules().lines(options.domain_rules)]})


def _name(category: str) -> str:
    return quoted(category, NAME_CHARACTERS)
