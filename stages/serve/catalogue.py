"""The ids that the outside world uses, and what the log knows of its users."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from stages.shared.core.outputs import DATA
from stages.shared.core.schemas import INTERACTIONS, ITEMS, USERS, read_table


@dataclass(frozen=True)
class IdCatalogue:
    """items: ITEMS by number. users: source id -> number. log: INTERACTIONS by user, then position. run: where it was read."""

    items: pl.DataFrame
    users: dict[str, int]
    log: pl.DataFrame
    run: Path = Path()

    @classmethod
    def read(cls, run: Path = Path()) -> "IdCatalogue":
        """run: the folder of a finished run."""
        items = read_table(run / DATA / "ingest/items.parquet", ITEMS)
        users = read_table(run / DATA / "ingest/users.parquet", USERS)
        log = read_table(run / DATA / "ingest/interactions.parquet", INTERACTIONS)
        return cls(items, dict(zip(users["source_id"].to_list(), users["user"].to_list(), strict=True)), log, run)

    @cached_property
    def source_ids(self) -> list[str]:
        return self.items["source_id"].to_list()

    @cached_property
    def titles(self) -> list[str]:
        return self.items["title"].to_list()

    @cached_property
    def item_of(self) -> dict[str, int]:
        return {source_id: item for item, source_id in enumerate(self.source_ids)}

    @cached_property
    def item_of_title(self) -> dict[str, int]:
        """Titles that one item alone has."""
        times = Counter(self.titles)
        return {title: item for item, title in enumerate(self.titles) if title and times[title] == 1}

    @cached_property
    def _histories(self) -> dict[int, list[int]]:
        grouped = self.log.sort("user", "position").group_by("user", maintain_order=True).agg("item")
        return dict(grouped.iter_rows())

    def find(self, name: str | int) -> int | None:
        """The item with this source id, or else with this title; None where there is none, or several have the title."""
        found = self.item_of.get(str(name))
        return self.item_of_title.get(str(name)) if found is None else found

    def known(self, names: Sequence[str | int]) -> list[int]:
        """Those of `names` that the catalogue has."""
        return [item for item in map(self.find, names) if item is not None]

    def history(self, user: str | int) -> list[int] | None:
        """All that the log has of the user with this source id, oldest first; None where it does not know the user."""
        number = self.users.get(str(user))
        return None if number is None else self._histories.get(number, [])
