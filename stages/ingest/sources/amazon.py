"""Amazon Reviews of 2014, 2018 and 2023: the official review, rating and metadata files of one category (McAuley Lab, UCSD)."""

import re
from collections.abc import Callable
from pathlib import Path

from stages.ingest.readers.chunks import Input
from stages.ingest.readers.delimited import Columns, read_delimited
from stages.ingest.readers.jsonlines import INTERACTION_FIELDS, ITEM_FIELDS, Record, field, optional, read_json_lines, required, text, texts
from stages.ingest.readers.raw import RawFile
from stages.ingest.readers.validate import StagingTables, TimeUnit
from stages.shared.core.errors import StageError

# By generation, {C} for the category: files of the log in order of preference, and the metadata. Each may end in .gz, too.
LOGS = {
    "2014": ("reviews_{C}_5.json", "reviews_{C}.json", "ratings_{C}.csv"),
    # The 5-core files first: they are what the papers use.
    "2018": ("{C}_5.json", "{C}.json", "{C}.csv"),
    "2023": ("{C}.jsonl",),
}
METAS = {"2014": "meta_{C}.json", "2018": "meta_{C}.json", "2023": "meta_{C}.jsonl"}
# user, item, timestamp, rating in the review files
_REVIEW_FIELDS = {
    "2014": ("reviewerID", "asin", "unixReviewTime", "overall"),
    "2018": ("reviewerID", "asin", "unixReviewTime", "overall"),
    "2023": ("user_id", "parent_asin", "timestamp", "rating"),
}
_REVIEW_UNITS: dict[str, TimeUnit] = {"2014": "s", "2018": "s", "2023": "ms"}
# The rating files have no header, and the two generations another order.
_CSV_ORDER = {"2014": ("user", "item", "rating", "timestamp"), "2018": ("item", "user", "rating", "timestamp")}


def find(folder: Path, generation: str, category: str) -> tuple[Input, Input]:
    """The log and the metadata of `category` in `folder`; StageError names the files that would do."""
    inputs = []
    for patterns in (LOGS[generation], (METAS[generation],)):
        names = [pattern.replace("{C}", category) + gz for pattern in patterns for gz in ("", ".gz")]
        paths = [folder / name for name in names if (folder / name).exists()]
        if not paths:
            raise StageError(f"{folder}: needs one of {', '.join(names)}; put it there, or look at ingest.category")
        inputs.append(Input(paths[0]))
    return inputs[0], inputs[1]


def categories_in(folder: Path, generation: str) -> list[str]:
    """Categories with both a log and metadata in `folder`, by the names of the files."""
    names = {path.name.removesuffix(".gz") for path in folder.iterdir()}
    metas = [re.fullmatch(METAS[generation].replace("{C}", "(.+)"), name) for name in names]
    categories = sorted(match[1] for match in metas if match)
    return [category for category in categories if names & {log.replace("{C}", category) for log in LOGS[generation]}]


def read_log(source: Input, generation: str, scratch: StagingTables) -> RawFile:
    if source.name.removesuffix(".gz").endswith(".csv"):
        columns = Columns(dict.fromkeys(_CSV_ORDER[generation], ()))
        return read_delimited(source, ",", columns, lambda table: scratch.add_interactions(source.name, table), quoted=True)
    user, item, time, rating = _REVIEW_FIELDS[generation]
    unit = _REVIEW_UNITS[generation]

    def values(record: Record) -> tuple[str | None, ...]:
        return required(record, user), required(record, item), required(record, time), optional(record, rating)

    return read_json_lines(source, INTERACTION_FIELDS, values, lambda table: scratch.add_interactions(source.name, table, unit))


def read_meta(source: Input, generation: str, scratch: StagingTables) -> RawFile:
    """2014: Python literals; of the `categories`, paths through the shop's tree, the first. 2018: `category` is the one path."""
    return read_json_lines(
        source,
        ITEM_FIELDS,
        _META_VALUES[generation],
        lambda table: scratch.add_items(source.name, table),
        literals=generation == "2014",
    )


def _values_2014(record: Record) -> tuple[str | list[str], ...]:
    return required(record, "asin"), field(record, "title"), "", field(record, "brand"), texts(record.get("categories"))


def _values_2018(record: Record) -> tuple[str | list[str], ...]:
    categories = texts(record.get("category") or record.get("categories"))
    return required(record, "asin"), field(record, "title"), "", field(record, "brand"), categories


def _values_2023(record: Record) -> tuple[str | list[str], ...]:
    details = record.get("details")
    brand = field(record, "store") or (text(details.get("Brand")) if isinstance(details, dict) else "")
    return required(record, "parent_asin"), field(record, "title"), "", brand, texts(record.get("categories"))


_META_VALUES: dict[str, Callable[[Record], tuple[str | list[str], ...]]] = {
    "2014": _values_2014,
    "2018": _values_2018,
    "2023": _values_2023,
}
