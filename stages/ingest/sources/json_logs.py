"""Published logs of one JSON object (or Python literal) a line: Goodreads and Steam (McAuley Lab, UCSD), and Yelp's Open Dataset."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.ingest.readers.chunks import Input
from stages.ingest.readers.jsonlines import INTERACTION_FIELDS, ITEM_FIELDS, Record, optional, read_json_lines, required, text, texts
from stages.ingest.readers.raw import RawLog
from stages.ingest.readers.times import ISO, with_times
from stages.ingest.readers.validate import StagingTables
from stages.shared.core.errors import StageError

_UCSD = "Collected by the McAuley Lab, UCSD, for academic use; cite their papers. No licence is stated."
_YELP = "Yelp Open Dataset: for academic and personal use under the agreement accepted at its download; not to be redistributed."
# Shelves that say what a reader did with a book, not what it is about.
_STATUS = (
    "read",
    "own",
    "buy",
    "wish",
    "tbr",
    "favo",
    "library",
    "kindle",
    "ebook",
    "e-book",
    "audio",
    "default",
    "abandon",
    "finish",
    "dnf",
)
_SHELVES = 3  # the most frequent others are taken for genres
Values = Callable[[Record], tuple[Any, ...]]


@dataclass(frozen=True)
class JsonLog:
    """`log`, `items`: names of the files, perhaps with .gz; of Goodreads with {C} for the genre. `time_form`: of the times (times.py)."""

    title: str
    licence: str
    log: str
    items: str
    log_values: Values  # user, item, timestamp, rating
    item_values: Values  # ITEM_FIELDS
    time_form: str
    category_word: str
    literals: bool = False


def _goodreads_log(record: Record) -> tuple[Any, ...]:
    """A row for every book on a shelf, by the time it was put there; a rating of 0 means that there is none."""
    rating = optional(record, "rating")
    return required(record, "user_id"), required(record, "book_id"), required(record, "date_added"), None if rating == "0" else rating


def _goodreads_book(record: Record) -> tuple[Any, ...]:
    shelves = [shelf for shelf in texts(record.get("popular_shelves")) if not any(word in shelf.lower() for word in _STATUS)]
    title, publisher = text(record.get("title")), text(record.get("publisher"))
    return required(record, "book_id"), title, text(record.get("publication_year")), publisher, shelves[:_SHELVES]


def _steam_log(record: Record) -> tuple[Any, ...]:
    """No rating is published, only days; within a day the order of the file counts."""
    return required(record, "username"), required(record, "product_id"), required(record, "date"), None


def _steam_game(record: Record) -> tuple[Any, ...]:
    title = text(record.get("app_name")) or text(record.get("title"))
    genres = texts(record.get("genres")) or texts(record.get("tags"))
    return required(record, "id"), title, text(record.get("release_date"))[:4], text(record.get("developer")), genres


def _yelp_log(record: Record) -> tuple[Any, ...]:
    return required(record, "user_id"), required(record, "business_id"), required(record, "date"), optional(record, "stars")


def _yelp_business(record: Record) -> tuple[Any, ...]:
    categories = [category.strip() for category in text(record.get("categories")).split(",")]
    return required(record, "business_id"), text(record.get("name")), "", "", [category for category in categories if category]


_GOODREADS_TIME = "%a %b %d %H:%M:%S %z %Y"  # Fri Aug 25 13:55:02 -0700 2017
JSON_LOGS = {
    "goodreads": JsonLog(
        *("Goodreads", _UCSD, "goodreads_interactions_{C}.json", "goodreads_books_{C}.json"),
        *(_goodreads_log, _goodreads_book, _GOODREADS_TIME, "Genres"),
    ),
    "steam": JsonLog(
        *("Steam", _UCSD, "steam_reviews.json", "steam_games.json", _steam_log, _steam_game, ISO, "Genres"),
        literals=True,
    ),
    "yelp": JsonLog(
        *("Yelp", _YELP, "yelp_academic_dataset_review.json", "yelp_academic_dataset_business.json"),
        *(_yelp_log, _yelp_business, ISO, "Categories"),
    ),
}


def has_log(folder: Path, source: str) -> bool:
    """Whether a file of it stands in `folder`, of Goodreads of any genre."""
    pattern = JSON_LOGS[source].log.replace("{C}", "*")
    return any([*folder.glob(pattern), *folder.glob(f"{pattern}.gz")])


def read_json_log(folder: Path, source: str, category: str, scratch: StagingTables) -> RawLog:
    """`category`: of Goodreads the genre; "" = all books, or the one genre that the folder holds."""
    published = JSON_LOGS[source]
    log, items = (_find(folder, name) for name in _names(folder, source, category))

    files = [
        read_json_lines(
            log,
            INTERACTION_FIELDS,
            published.log_values,
            lambda rows: scratch.add_interactions(log.name, with_times(rows, published.time_form)),
            published.literals,
        ),
        read_json_lines(items, ITEM_FIELDS, published.item_values, lambda rows: scratch.add_items(items.name, rows), published.literals),
    ]
    return scratch.finish(f"{published.title} ({log.name})", published.licence, files, published.category_word, same_again=True)


def _names(folder: Path, source: str, category: str) -> tuple[str, str]:
    published = JSON_LOGS[source]
    if "{C}" not in published.log:
        return published.log, published.items
    start, _, end = published.log.partition("{C}")
    present = {path.name.removesuffix(".gz") for path in folder.glob(f"{start}*")}
    genres = sorted(name.removeprefix(start).removesuffix(end) for name in present)
    if not category and len(genres) > 1:
        raise StageError(f"{folder}: holds several genres ({', '.join(genres)}); name one in ingest.category")
    genre = category or (genres[0] if genres else "dedup")
    # The whole log is that without duplicates; its books have no genre in their name.
    return published.log.replace("{C}", genre), published.items.replace(
        "_{C}" if genre == "dedup" else "{C}", "" if genre == "dedup" else genre
    )


def _find(folder: Path, name: str) -> Input:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return Input(path)
    raise StageError(f"{folder}: needs {name} or {name}.gz; put it there, or look at ingest.source and ingest.category")
