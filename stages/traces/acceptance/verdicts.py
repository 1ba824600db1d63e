"""data/traces/slates.parquet: what became of every training slate."""

from collections.abc import Sequence

import polars as pl

from stages.shared.core.schemas import Schema
from stages.traces.acceptance.rejection import RejectionLog, SlateLog
from stages.traces.out_of_time import ScoredSlate

# One row a training slate, by time, then slate. `verdict`: kept; improbable (student_fit.py), luck, unverified, never_right, fault (no try
# could be read or held its checks); not_labelled (of the first time fold, which no scorer is earlier than); no_target (the retriever missed
# it: nothing to explain). `kept`: traces; `attempts`: the cap of tries; `fault`: the commonest, of all tries.
SLATE_VERDICTS: Schema = {
    "slate": pl.Int32,
    "user": pl.Int32,
    "timestamp": pl.Int64,
    "verdict": pl.String,
    "kept": pl.Int32,
    "tries": pl.Int32,
    "attempts": pl.Int32,
    "right": pl.Int32,
    "unverified": pl.Int32,
    "faults": pl.Int32,
    "fault": pl.String,
}


def verdicts_table(slates: pl.DataFrame, labelled: Sequence[ScoredSlate], log: RejectionLog, attempts: int) -> pl.DataFrame:
    """slates: data/retrieve/slates.parquet; labelled: those that the teacher was asked about, in the order of `log`."""
    logs = {scored.slate.slate: one for scored, one in zip(labelled, log.slates, strict=True)}
    training = slates.filter(pl.col("split") == "train").sort("timestamp", "slate")
    rows = []
    for slate, user, timestamp, target_rank in training.select("slate", "user", "timestamp", "target_rank").iter_rows():
        one = logs.get(slate, SlateLog())
        word = verdict(one) if slate in logs else "not_labelled" if target_rank >= 0 else "no_target"
        fault = min(one.faults, key=lambda kind: (-one.faults[kind], kind), default="")
        counts = (len(one.kept), one.tries, attempts, one.right, one.unverified, one.faults.total())
        rows.append((slate, user, timestamp, word, *counts, fault))
    return pl.DataFrame(rows, schema=SLATE_VERDICTS, orient="row")


def verdict(one: SlateLog) -> str:
    """Of a slate that the teacher was asked about."""
    if one.kept:
        return "kept"
    if one.improbable:
        return "improbable"
    if one.luck:
        return "luck"
    if one.unverified:
        return "unverified"
    return "fault" if one.faults.total() == one.tries else "never_right"
