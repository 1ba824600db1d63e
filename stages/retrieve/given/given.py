"""The retriever `given`: no model proposes candidates, a log of slates that were shown does."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from stages.retrieve.folds import FULL_FIT
from stages.retrieve.given.card import card
from stages.retrieve.given.files import SUFFIXES, Row, converted, logged_files, read_tables
from stages.retrieve.given.impression import Impression, Refused
from stages.retrieve.given.mind import mind_files, read_mind
from stages.retrieve.given.placing import LeftOut, PlacedSlate, Placing
from stages.retrieve.given.propensities import propensities
from stages.retrieve.metrics import GivenFigures, PlaceFigures
from stages.retrieve.params import GivenParams, RetrieveParams
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA
from stages.shared.core.progress import note
from stages.shared.core.schemas import LOGGED_SLATES, USERS, read_table

QUARANTINE = {"file": pl.String, "row": pl.Int64, "reason": pl.String}
FULL_LIST = Path(".gr2/quarantine/retrieve.parquet")  # of a stage that failed: such a stage publishes nothing
SHOWN = 5


@dataclass
class Reading:
    """What became of every row. rows: file -> how many; refused: (file, row, reason)."""

    rows: Counter[str] = field(default_factory=Counter)
    refused: list[tuple[str, int, str]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    impressions: list[tuple[str, int, Impression]] = field(default_factory=list)


@dataclass(frozen=True)
class GivenSlates:
    """table: LOGGED_SLATES by user, then position."""

    table: pl.DataFrame
    figures: GivenFigures
    refused: pl.DataFrame

    def write(self, folder: Path) -> None:
        """What was refused, and the card, where other retrievers keep their weights."""
        self.refused.write_parquet(folder / "quarantine.parquet", compression="zstd", statistics=False)
        (folder / "card.md").write_text(card(self.figures), encoding="utf-8")


def given_slates(params: RetrieveParams, interactions: pl.DataFrame, items: pl.DataFrame) -> GivenSlates:
    """Reads params.reads. StageError where too many rows of a file are refused, or too few slates are left to train and to test on."""
    placed, reading = placed_slates(params, interactions, items, read_table(DATA / "ingest/users.parquet", USERS))
    refused = pl.DataFrame(sorted(reading.refused), schema=QUARANTINE, orient="row")
    require_few(reading, refused, params.given.max_bad_share)
    placed.sort(key=lambda slate: (slate.user, slate.position))
    require_splits(placed, reading, params.reads)
    figures = figures_of(placed, reading, params.given, converted(named_files(params)))
    tell(figures)
    return GivenSlates(slates_table(placed, params.given), figures, refused)


def placed_slates(
    params: RetrieveParams, interactions: pl.DataFrame, items: pl.DataFrame, users: pl.DataFrame
) -> tuple[list[PlacedSlate], Reading]:
    """Those that have a place in their user's sequence, and what became of all rows. items, users: with source_id."""
    reading = read(logged_rows(params))
    # By time, so that of two claims to one interaction the first is kept, whatever the order of the files.
    reading.impressions.sort(key=lambda row: row[2].time)
    placing = Placing(interactions, ids(users, "user"), ids(items, "item"), params.candidates, params.history)
    placed: list[PlacedSlate] = []
    for file, row, impression in reading.impressions:
        try:
            placed.append(placing.place(impression))
        except Refused as reason:
            reading.refused.append((file, row, str(reason)))
        except LeftOut as reason:
            reading.left_out[str(reason)] += 1
    return placed, reading


def logged_rows(params: RetrieveParams) -> Iterator[Row]:
    return read_mind(Path(params.reads)) if params.given.format == "mind" else read_tables(Path(params.reads), params.given)


def named_files(params: RetrieveParams) -> list[tuple[str, Path]]:
    """The logged files, by the names that rows have."""
    path = Path(params.reads)
    return mind_files(path) if params.given.format == "mind" else [(file.name, file) for file in logged_files(path, SUFFIXES)]


def read(rows: Iterator[Row]) -> Reading:
    reading = Reading()
    for file, number, row in rows:
        reading.rows[file] += 1
        if isinstance(row, Refused):
            reading.refused.append((file, number, str(row)))
        else:
            reading.impressions.append((file, number, row))
    return reading


def ids(table: pl.DataFrame, column: str) -> dict[str, int]:
    return dict(table.select("source_id", column).iter_rows())


def require_few(reading: Reading, refused: pl.DataFrame, share: float) -> None:
    by_file = dict(refused.group_by("file").len().iter_rows())
    bad = sorted(file for file, count in by_file.items() if count > share * reading.rows[file])
    if not bad:
        FULL_LIST.unlink(missing_ok=True)  # of an earlier failure
        return
    FULL_LIST.parent.mkdir(parents=True, exist_ok=True)
    partial = FULL_LIST.with_suffix(".partial")
    refused.write_parquet(partial)
    os.replace(partial, FULL_LIST)
    lines = []
    for file in bad:
        rows = refused.filter(pl.col("file") == file)
        reasons = rows.group_by("reason").agg(pl.len(), pl.col("row").min()).sort("len", "reason", descending=[True, False])
        lines.append(
            f"{file}: {rows.height} of {reading.rows[file]} logged slates are refused, more than retrieve.given.max_bad_share ({share:g}) "
            f"allows; all of them are in {FULL_LIST}"
        )
        lines += [f"  {count} times: {reason} (first: row {row})" for reason, count, row in reasons.head(SHOWN).iter_rows()]
    raise StageError("\n".join(lines))


def require_splits(placed: list[PlacedSlate], reading: Reading, source: str) -> None:
    splits = {slate.split for slate in placed}
    if missing := [split for split in ("train", "test") if split not in splits]:
        why = "; ".join(f"{count} times: {reason}" for reason, count in reading.left_out.most_common(SHOWN)) or "no row at all"
        raise StageError(
            f"{source}: of {sum(reading.rows.values())} logged slates none belongs to the split {missing[0]} (left out: {why}); their "
            "taken items must be in the log that ingest read, under the same ids, after the base split (ingest.base_share)"
        )


def slates_table(placed: list[PlacedSlate], params: GivenParams) -> pl.DataFrame:
    columns = {
        "slate": range(len(placed)),
        "user": [slate.user for slate in placed],
        "position": [slate.position for slate in placed],
        "timestamp": [slate.timestamp for slate in placed],
        "split": [slate.split for slate in placed],
        "history": [slate.history for slate in placed],
        "candidates": [slate.candidates for slate in placed],
        "scores": [scores_of(slate.impression, params) for slate in placed],
        "target": [slate.candidates[slate.target_rank] for slate in placed],
        "target_rank": [slate.target_rank for slate in placed],
        "fold": [FULL_FIT] * len(placed),
        "provenance": [""] * len(placed),
        "hard": [[]] * len(placed),
        "grades": [slate.impression.grades for slate in placed],
        "propensities": propensities(placed, params),
    }
    return pl.DataFrame(columns, schema=LOGGED_SLATES)


def scores_of(impression: Impression, params: GivenParams) -> list[float]:
    """Those logged. Else minus the place, so that `sc` says how far from the top a candidate was shown; 0 where the order says nothing."""
    if impression.scores is not None:
        return list(impression.scores)
    return [-float(place) if params.order == "shown" else 0.0 for place in range(len(impression.candidates))]


def figures_of(placed: list[PlacedSlate], reading: Reading, params: GivenParams, encodings: dict[str, str]) -> GivenFigures:
    """encodings: file -> what it was read from, of those that are not UTF-8."""
    refused: dict[str, Counter[str]] = defaultdict(Counter)
    for file, _, reason in reading.refused:
        refused[file][reason] += 1
    lengths = np.array([len(slate.candidates) for slate in placed])
    grades = [grade for slate in placed for grade in slate.impression.grades if grade]
    taken = np.array([sum(map(bool, slate.impression.grades)) for slate in placed])
    return GivenFigures(
        files=dict(sorted(reading.rows.items())),
        converted=encodings or None,
        refused={file: dict(sorted(reasons.items())) for file, reasons in sorted(refused.items())},
        left_out=dict(sorted(reading.left_out.items())),
        slates=len(placed),
        candidates_mean=float(lengths.mean()),
        candidates_longest=int(lengths.max()),
        several_taken=float((taken > 1).mean()),
        grades={str(grade): count for grade, count in sorted(Counter(grades).items())},
        order=params.order,
        scores="logged"
        if all(slate.impression.scores is not None for slate in placed)
        else "by place"
        if params.order == "shown"
        else "none",
        propensities=params.propensity,
        places=place_figures(placed),
    )


def place_figures(placed: list[PlacedSlate]) -> list[PlaceFigures]:
    """By place from 1: how often one was shown there, and taken. Of slates from which something was taken: the shares are of these."""
    width = max(len(slate.candidates) for slate in placed)
    shown, taken = np.zeros(width, int), np.zeros(width, int)
    for slate in placed:
        shown[: len(slate.candidates)] += 1
        taken[: len(slate.candidates)] += np.array(slate.impression.grades) > 0
    return [
        PlaceFigures(place=place, shown=n, taken=count, share=count / n)
        for place, (n, count) in enumerate(zip(shown.tolist(), taken.tolist(), strict=True), 1)
    ]


def tell(figures: GivenFigures) -> None:
    refused = sum(sum(reasons.values()) for reasons in figures.refused.values())
    note(
        f"{figures.slates:,} slates of {sum(figures.files.values()):,} logged ones; refused: {refused:,}; left out: "
        + (", ".join(f"{reason}: {count:,}" for reason, count in figures.left_out.items()) or "none")
    )
