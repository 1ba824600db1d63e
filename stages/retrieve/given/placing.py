"""Where a logged slate belongs: the position of what was taken in its user's sequence, and with it the split and the history.

The position is that of the first taken item in the user's log. So a slate lies in the split of that interaction, its history is what the
user took before it was shown, and every leak check for slates of our own holds for it, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.retrieve.given.impression import Impression, Refused

BASE = "base"
IN_BASE = "in the base split, which the statistics are counted from"
YEAR = 365 * 86_400  # seconds


class LeftOut(Exception):
    """A row that is right and makes no slate. The text is the reason that counts are kept by."""


@dataclass(frozen=True)
class PlacedSlate:
    """Ids are the pipeline's. position: of the first taken item; target_rank: its place in `candidates`."""

    user: int
    position: int
    timestamp: int
    split: str
    history: list[int]
    candidates: list[int]
    target_rank: int
    impression: Impression


@dataclass
class UserLog:
    """What one user took, oldest first. claimed: items that a slate has as taken already."""

    items: NDArray[np.int32]
    timestamps: NDArray[np.int64]
    splits: list[str]
    position_of: dict[int, int] = field(default_factory=dict)
    claimed: set[int] = field(default_factory=set)


class Placing:
    def __init__(self, interactions: pl.DataFrame, users: Mapping[str, int], items: Mapping[str, int], longest: int, history: int):
        """users, items: the source's ids -> the pipeline's. longest: candidates of a slate; history: items of it that are kept."""
        self.interactions = interactions
        self.users, self.items, self.longest, self.history = users, items, longest, history
        rows = interactions.with_row_index("row").group_by("user").agg(pl.col("row").min(), pl.len().alias("count"))
        self.earliest = int(interactions["timestamp"].min() or 0) - YEAR  # type: ignore[arg-type]
        self.rows = {user: (row, count) for user, row, count in rows.iter_rows()}
        self.logs: dict[int, UserLog] = {}

    def place(self, impression: Impression) -> PlacedSlate:
        """Refused where the slate contradicts the catalogue or the log, LeftOut where nothing is to be learnt or measured from it.

        Of two slates that say that one thing was taken the first to be placed is kept: give them by time.
        """
        user = self.users.get(impression.user)
        if user is None or user not in self.rows:
            raise LeftOut("the user is not in the log, or was left out of it by ingest")
        if impression.time < self.earliest:
            raise Refused("shown a year or more before the log begins: another retrieve.given.time_unit?")
        if not any(impression.grades):
            raise LeftOut("nothing was taken")
        if len(impression.candidates) < 2:
            raise LeftOut("one candidate alone")
        if len(impression.candidates) > self.longest:
            raise LeftOut("longer than retrieve.candidates")
        candidates = [self.items.get(item, -1) for item in impression.candidates]
        if -1 in candidates:
            raise Refused("a candidate is not in the catalogue (data/ingest/items.parquet)")
        log = self._log(user)
        taken = [item for item, grade in zip(candidates, impression.grades, strict=True) if grade]
        positions = [self._position(log, item, impression.time) for item in taken]
        splits = {log.splits[position] for position in positions}
        if len(splits) > 1:
            raise LeftOut("what was taken lies in two splits")
        [split] = splits
        if split == BASE:
            raise LeftOut(IN_BASE)
        if log.claimed & set(taken):
            raise LeftOut("an earlier slate says that the same was taken from it")
        seen = int(np.searchsorted(log.timestamps, impression.time, side="left"))
        if not seen:
            raise LeftOut("no history before it")
        log.claimed.update(taken)
        first = min(range(len(taken)), key=positions.__getitem__)
        history = log.items[max(0, seen - self.history) : seen].tolist()
        rank = candidates.index(taken[first])
        return PlacedSlate(user, positions[first], impression.time, split, history, candidates, rank, impression)

    def _position(self, log: UserLog, item: int, time: int) -> int:
        position = log.position_of.get(item)
        if position is None:
            raise Refused("a taken item is not in the user's log")
        # The log keeps the first time that a user took an item.
        if log.timestamps[position] < time:
            raise LeftOut("takes again what the user took before")
        return position

    def _log(self, user: int) -> UserLog:
        if user not in self.logs:
            rows = self.interactions.slice(*self.rows[user])
            log = UserLog(rows["item"].to_numpy(), rows["timestamp"].to_numpy(), rows["split"].to_list())
            log.position_of = {item: position for position, item in enumerate(log.items.tolist())}
            self.logs[user] = log
        return self.logs[user]
