"""The data card: what metrics.json holds, for people."""

from collections.abc import Iterable, Sequence
from typing import Any

_DROPPED = {
    "rejected": "rows rejected (see below)",
    "below_min_rating": "rated below min_rating",
    "duplicates": "repeats of a user's item; the earliest stays",
    "interactions_outside_core": "of users or items with too few (k-core)",
    "beyond_max_history": "older than the latest max_history of the user",
    "interactions_of_cold_users": "of users with too little before the first cut in time",
}
_LEAKS = {
    "pairs_in_two_splits": "(user, item) pairs in two splits",
    "held_out_before_training": "valid or test interactions before a training one of the same user",
    "splits_that_overlap_in_time": "interactions of a split at or after the first of a later split, over all users",
}
_QUANTILES = ("min", "p05", "p25", "median", "p75", "p95", "max", "mean")


def data_card(metrics: dict[str, Any]) -> str:
    """Markdown out of the numbers that describe() made."""
    raw, dropped, cold = metrics["raw"], metrics["dropped"], metrics["cold"]
    lines = [
        f"# Data card: {_cell(raw['source'])}",
        "",
        f"Licence: {_cell(raw['licence'])}",
        "",
        *_table(("", ""), _size(metrics)),
        "## Splits",
        "",
        f"`ingest.split: {metrics['split']}`. Users without valid and test interactions (all base): {_number(metrics['users_all_base'])}.",
        "",
        *_table(
            ("split", "interactions", "users", "items", "first", "last"),
            (
                (name, *(counts[key] for key in ("interactions", "users", "items")), *_dates(counts["time"]))
                for name, counts in metrics["splits"].items()
            ),
        ),
        "## Lengths and popularity",
        "",
        *_table(
            ("", *_QUANTILES),
            (
                (name, *(metrics[key][quantile] for quantile in _QUANTILES))
                for name, key in (("interactions per user", "sequence_length"), ("interactions per item", "item_popularity"))
            ),
        ),
        f"Gini coefficient of the items' popularity (0: all alike): {metrics['item_popularity']['gini']:.3f}.",
        "",
        "## From the raw log to the table",
        "",
        *_table(
            ("", "interactions"),
            [
                ("rows of the log", raw["rows"]),
                *((f"- {words}", dropped[key]) for key, words in _DROPPED.items()),
                ("left", metrics["interactions"]),
            ],
        ),
        f"Left out with them: {_number(dropped['users_outside_core'])} users and {_number(dropped['items_outside_core'])} items "
        f"outside the k-core, {_number(dropped['cold_users'])} cold users. "
        f"Items of the item file not kept: {_number(dropped['items_not_kept'])}.",
        "",
        *_forgotten(metrics),
        "## Rejected rows",
        "",
        *_rejected(metrics["rejected"]),
        "## Leak checks",
        "",
        "A leak fails the stage, so each count is 0.",
        "",
        *_table(
            ("check", "found"),
            ((words, metrics["leak_checks"].get(key, "not asked of this split")) for key, words in _LEAKS.items()),
        ),
        f"Not a leak, but hard to rank: {_number(cold['items_only_in_valid_or_test'])} items stand in valid or test alone; "
        f"the targets of {_number(cold['test_targets_unseen_in_base'])} test interactions "
        f"({cold['test_targets_unseen_in_base_share']:.2%}) are not in base.",
        "",
        "## Raw files",
        "",
        # Without folders: the card of equal data is equal on every machine.
        *_table(("file", "bytes", "sha256"), ((name, file["bytes"], f"`{file['sha256']}`") for name, file in raw["files"].items())),
        *_converted(raw["files"]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _size(metrics: dict[str, Any]) -> list[tuple[Any, ...]]:
    first, last = _dates(metrics["time"])
    return [
        ("users", metrics["users"]),
        ("items", metrics["items"]),
        ("interactions", metrics["interactions"]),
        ("sparsity", f"{metrics['sparsity']:.4%}"),
        ("time", "order only" if "first_date" not in metrics["time"] else f"{first} to {last}"),
        ("items without interactions", metrics["items_without_interactions"]),
        ("items that share their text with another", metrics["items_sharing_their_text"]),
        *([("items without a title, called by their ids", metrics["items_called_by_id"])] if "items_called_by_id" in metrics else []),
    ]


def _rejected(rejected: dict[str, dict[str, int]]) -> list[str]:
    rows = [(file, reason, count) for file, reasons in sorted(rejected.items()) for reason, count in sorted(reasons.items())]
    if not rows:
        return ["None.", ""]
    return ["One by one in `quarantine.parquet`.", "", *_table(("file", "reason", "rows"), rows)]


def _forgotten(metrics: dict[str, Any]) -> list[str]:
    if "forgotten_rows" not in metrics:
        return []
    rows, users, nobody = (metrics[f"forgotten_{name}"] for name in ("rows", "users", "digests_without_user"))
    return [
        f"Not among these rows: {_number(rows)} of {_number(users)} users who are forgotten (`ingest.forget`); "
        f"digests there that match no user: {_number(nobody)}.",
        "",
    ]


def _converted(files: dict[str, dict[str, Any]]) -> list[str]:
    """Of files that were in another encoding."""
    return [
        f"- {_cell(name)} is {file['converted_from']}, by its byte-order mark, and was read as UTF-8."
        for name, file in files.items()
        if "converted_from" in file
    ]


def _dates(span: dict[str, Any]) -> tuple[str, str]:
    return span.get("first_date", "-"), span.get("last_date", "-")


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    body = [f"| {' | '.join(_number(cell) for cell in row)} |" for row in rows]
    return [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *body, ""]


def _number(value: Any) -> str:
    """Thousands with commas, no idle zeros; text as a cell."""
    # Twelve digits: a count of a hundred billion rows must not turn into 1e+11.
    return _cell(value) if isinstance(value, str) else f"{value:,.12g}"


def _cell(text: str) -> str:
    """Text from outside (a file name, a licence note) in one line, without what Markdown would take for a column."""
    return " ".join(text.split()).replace("|", "\\|")
