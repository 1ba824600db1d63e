"""What the stage retrieve makes of a file of lists: read whole by its own readers, counted, and its first lists as they are understood."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from stages.retrieve.given.given import logged_rows
from stages.retrieve.given.impression import Impression, Refused
from stages.retrieve.params import RetrieveParams
from stages.shared.core.errors import StageError

ROWS = 5
_SHOWN = 4  # ids of a list that are printed
LETTERS = 26  # candidates that a prompt can name
WINDOW = 10  # of longer lists (docs/logged-slates.md)
LONGEST = 100  # the longest list that is kept without a question: long ones are many windows each


@dataclass(frozen=True)
class ListPreview:
    """`rows`: the first lists, as texts by column. `longest`: candidates. `before`: of a user's log in the middle, what lies before
    the first list; 0 where the lists are the log."""

    rows: list[dict[str, str]]
    lists: int
    refused: dict[str, int]
    taken_none: int
    taken_several: int
    longest: int
    mean: float
    before: float

    def sizes(self) -> dict[str, Any]:
        return {
            "lists": self.lists,
            "refused": self.refused,
            "nothing_taken": self.taken_none,
            "several_taken": self.taken_several,
            "longest": self.longest,
            "mean_length": round(self.mean, 1),
        }


def read_lists(params: RetrieveParams, log: pl.LazyFrame, items: set[str]) -> ListPreview:
    """log: user and timestamp of the interactions that ingest takes; items: ids of its catalogue. StageError where too many rows are
    refused (retrieve.given.max_bad_share), or hold items that the catalogue lacks."""
    refused: Counter[str] = Counter()
    first_bad: dict[str, int] = {}
    impressions: list[Impression] = []
    for _, number, row in logged_rows(params):
        if isinstance(row, Refused):
            refused[str(row)] += 1
            first_bad.setdefault(str(row), number)
        else:
            impressions.append(row)
    read = len(impressions) + refused.total()
    if not impressions or refused.total() > params.given.max_bad_share * read:
        reasons = "; ".join(f"{count} x {reason} (first: row {first_bad[reason]})" for reason, count in refused.most_common(5))
        raise StageError(
            f"{params.reads}: {refused.total()} of {read} lists cannot be right: {reasons or 'no rows'}; correct them, or leave them out: "
            "gr2 init ... --max-bad-share SHARE"
        )
    unknown = [one for one in impressions if not set(one.candidates) <= items]
    if len(unknown) > params.given.max_bad_share * read:
        missing = next(item for item in unknown[0].candidates if item not in items)
        raise StageError(
            f"{params.reads}: {len(unknown):,} of {read:,} lists hold items that are not among those that ingest reads, as {missing!r}; "
            "add them to the file of items, under the same ids (--items FILE, --item-id COLUMN)"
        )
    lengths = [len(one.candidates) for one in impressions]
    taken = [sum(map(bool, one.grades)) for one in impressions]
    return ListPreview(
        rows=[_row(one) for one in impressions[:ROWS]],
        lists=len(impressions),
        refused=dict(refused),
        taken_none=taken.count(0),
        taken_several=sum(count > 1 for count in taken),
        longest=max(lengths),
        mean=float(np.mean(lengths)),
        before=_before(impressions, log),
    )


def list_sections(preview: ListPreview) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Keys of retrieve beside `given`, other sections, and why."""
    candidates = min(preview.longest, LONGEST)
    why = [f"lists have up to {preview.longest} items" + (f"; those above {LONGEST} are left out" if candidates < preview.longest else "")]
    sections: dict[str, Any] = {}
    if candidates > LETTERS:
        sections["prompt"] = {"window": WINDOW}
        why.append(f"a prompt names at most {LETTERS} candidates: windows of {WINDOW} slide over longer lists (prompt.window)")
    if preview.taken_several:
        sections["rl"] = {"rank_reward": "ndcg"}
        why.append(f"from {preview.taken_several:,} lists more than one was taken: the reward is NDCG (rl.rank_reward)")
    return {"candidates": max(2, candidates)}, sections, why


def base_share(preview: ListPreview) -> tuple[float, str] | None:
    """ingest.base_share, where users took things before lists were logged: lists within base are left out."""
    if not 0.05 <= preview.before <= 0.8:
        return None
    share = round(preview.before, 2)
    return share, f"lists begin after {share:.0%} of a user's log, in the middle: so much is base (ingest.base_share)"


def _before(impressions: list[Impression], log: pl.LazyFrame) -> float:
    first = pl.LazyFrame({"user": [one.user for one in impressions], "shown": [one.time for one in impressions]}).group_by("user").min()
    share = (pl.col("timestamp") < pl.col("shown")).mean().alias("share")
    shares = log.join(first, on="user").group_by("user").agg(share).select("share").collect(engine="streaming")["share"]
    if shares.is_empty():
        raise StageError("no user of the lists is in the log: the ids of users must be the same in both; say --lists-user COLUMN")
    return float(shares.median() or 0.0)  # type: ignore[arg-type]


def _row(one: Impression) -> dict[str, str]:
    taken = [f"{item}{f' ({grade})' if grade > 1 else ''}" for item, grade in zip(one.candidates, one.grades, strict=True) if grade]
    more = f" and {len(one.candidates) - _SHOWN} more" if len(one.candidates) > _SHOWN else ""
    return {
        "user": one.user,
        "time (UTC)": str(np.datetime64(one.time, "s")).replace("T", " "),
        "shown": " ".join(one.candidates[:_SHOWN]) + more,
        "taken": " ".join(taken) or "(nothing)",
        "scores": "logged" if one.scores else "",
    }
