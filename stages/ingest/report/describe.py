"""The numbers of the data card and of metrics.json."""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.ingest.build.checks import check_leaks, cold_items
from stages.ingest.build.interactions import Interactions
from stages.ingest.build.quarantine import Counts
from stages.ingest.build.splits import SPLITS, counts_by_split
from stages.ingest.params import IngestParams
from stages.ingest.readers.raw import RawFile, RawLog
from stages.shared.sources.encoding import UTF8, shown

QUANTILES = {"p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}


def describe(raw: RawLog, items: pl.DataFrame, log: Interactions, rejected: Counts, params: IngestParams) -> dict[str, Any]:
    """`items`: ITEMS. Runs the leak checks, and fails where one does."""
    leak_checks = check_leaks(log.table, params.split)
    table, users = log.table, log.users.height
    code_N = table["split"].to_physical().to_numpy()
    lengths_SU = counts_by_split(code_N, table["user"].to_numpy(), users)
    # Items that nobody took count as well: they are part of what is to be ranked.
    popularity_SI = counts_by_split(code_N, table["item"].to_numpy(), items.height)
    lengths_U, popularity_I = lengths_SU.sum(axis=0), popularity_SI.sum(axis=0)
    splits = _by_split(table, lengths_SU, popularity_SI, raw.time)
    return {
        "raw": {
            "name": raw.files[0].name,
            "sha256": raw.files[0].sha256,
            "bytes": raw.files[0].size,
            "files": {file.name: _file(file) for whole in raw.files for file in whole.parts or (whole,)},
            "source": raw.name,
            "licence": raw.licence,
            "rows": raw.interaction_rows,
            "item_rows": raw.item_rows,
        },
        "split": params.split,
        "users": users,
        "users_all_base": users - splits["test"]["users"],
        "items": items.height,
        "items_without_interactions": int((popularity_I == 0).sum()),
        "items_sharing_their_text": int(items["text"].is_duplicated().sum()),
        "interactions": table.height,
        "sparsity": round(1 - table.height / (users * items.height), 6),
        "by_split": {name: counts["interactions"] for name, counts in splits.items()},
        "splits": splits,
        "time": _span(int(table["timestamp"].to_numpy().min()), int(table["timestamp"].to_numpy().max()), raw.time),
        "rejected": rejected,
        **raw.forgotten,
        "dropped": log.dropped,
        "sequence_length": _distribution(lengths_U),
        "item_popularity": {**_distribution(popularity_I), "gini": gini(popularity_I)},
        "cold": cold_items(table),
        "leak_checks": leak_checks,
    }


def _file(file: RawFile) -> dict[str, Any]:
    converted = {} if file.encoding == UTF8 else {"converted_from": shown(file.encoding)}
    return {"sha256": file.sha256, "bytes": file.size, **converted}


def gini(counts: NDArray[np.integer]) -> float:
    """0: all alike; towards 1: one has all. The mean absolute difference of two of them by twice the mean."""
    ascending = np.sort(counts).astype(np.int64)
    n = len(ascending)
    # In integers up to the division, so the result has the same last digit everywhere.
    return round(int((2 * np.arange(1, n + 1) - n - 1) @ ascending) / (n * int(ascending.sum())), 6)


def _distribution(counts: NDArray[np.integer]) -> dict[str, float]:
    quantiles = {name: round(float(np.quantile(counts, share)), 2) for name, share in QUANTILES.items()}
    return {"min": int(counts.min()), **quantiles, "max": int(counts.max()), "mean": round(float(counts.mean()), 2)}


def _by_split(table: pl.DataFrame, lengths_SU: NDArray[np.int64], popularity_SI: NDArray[np.int64], time: str) -> dict[str, dict[str, Any]]:
    moment = pl.col("timestamp")
    spans = table.group_by("split").agg(first=moment.min(), last=moment.max()).rows_by_key("split", unique=True)
    return {
        name: {
            "interactions": int(lengths_U.sum()),
            "users": int(np.count_nonzero(lengths_U)),
            "items": int(np.count_nonzero(popularity_I)),
            "time": _span(spans[name][0], spans[name][1], time) if name in spans else {},
        }
        for name, lengths_U, popularity_I in zip(SPLITS, lengths_SU, popularity_SI, strict=True)
    }


def _span(first: int, last: int, time: str) -> dict[str, int | str]:
    if time == "order":
        return {"first": first, "last": last, "unit": "order only: places in each user's sequence"}
    dates = {"first_date": _date(first), "last_date": _date(last)}
    return {"first": first, "last": last, **dates, "unit": "seconds since 1970"}


def _date(seconds: int) -> str:
    """ISO 8601, UTC. Through numpy, because datetime ends with the year 9999."""
    return f"{np.datetime64(seconds, 's')}Z"
