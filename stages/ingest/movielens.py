"""Reads MovieLens-100K in the two forms it is found in: RecBole's atomic files and GroupLens's own."""

from collections.abc import Iterator
from dataclasses import dataclass

from stages.shared.errors import StageError

# GroupLens's u.item: five text columns, then one 0/1 column per genre, in this order (u.genre of the same archive).
# fmt: off
_GENRES = [
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
]
# fmt: on
_ITEM_COLUMNS = {"title": ("movie_title", "title"), "year": ("release_year", "year"), "genres": ("class", "genre", "categories")}


@dataclass(frozen=True)
class RawFile:
    """A source file in memory. `name` is for error messages and metrics."""

    name: str
    content: bytes


@dataclass(frozen=True)
class RawItem:
    """An item as the source writes it: no cleaning yet. `row` counts from 1."""

    source_id: str
    title: str
    year: str
    brand: str
    genres: list[str]
    row: int


@dataclass(frozen=True)
class RawInteraction:
    """`row` counts lines from 1 and breaks ties between equal timestamps (seconds)."""

    user: str
    item: str
    timestamp: int
    row: int


def recbole_interactions(file: RawFile) -> list[RawInteraction]:
    """A `.inter` file: tab-separated, header `user_id:token item_id:token ... timestamp:float`."""
    rows = list(_typed_rows(file, {"user_id": ("user_id",), "item_id": ("item_id",), "timestamp": ("timestamp",)}))
    return [_interaction(file, row, fields["user_id"], fields["item_id"], fields["timestamp"]) for row, fields in rows]


def recbole_items(file: RawFile) -> list[RawItem]:
    """A `.item` file: item_id and title; year, genres (separated by spaces) and brand where it has them."""
    columns = {"item_id": ("item_id",), "title": _ITEM_COLUMNS["title"]}
    optional = {"year": _ITEM_COLUMNS["year"], "genres": _ITEM_COLUMNS["genres"], "brand": ("brand",)}
    items = []
    for row, fields in _typed_rows(file, columns, optional):
        genres = fields.get("genres", "").split()
        items.append(RawItem(fields["item_id"].strip(), fields["title"], fields.get("year", ""), fields.get("brand", ""), genres, row))
    return items


def grouplens_interactions(file: RawFile) -> list[RawInteraction]:
    """`u.data`: user, item, rating, timestamp; tab-separated, no header."""
    return [_interaction(file, row, user, item, time) for row, (user, item, _, time) in _rows(file, decode(file, "ascii"), "\t", 4)]


def grouplens_items(file: RawFile) -> list[RawItem]:
    """`u.item`: Latin-1, `|`-separated, no header; genres as 19 flags."""
    items = []
    for row, fields in _rows(file, decode(file, "latin-1"), "|", 5 + len(_GENRES)):
        flags = fields[5:]
        if set(flags) - {"0", "1"}:
            raise StageError(f"{file.name}, row {row}: columns 6 to {5 + len(_GENRES)} are genre flags and must be 0 or 1; correct the row")
        genres = [genre for genre, flag in zip(_GENRES, flags, strict=True) if flag == "1"]
        items.append(RawItem(fields[0].strip(), fields[1], fields[2][-4:], "", genres, row))
    return items


def decode(file: RawFile, encoding: str) -> str:
    """The text of `file`; StageError names the first row that is not in `encoding`."""
    try:
        return file.content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        row = file.content.count(b"\n", 0, error.start) + 1
        raise StageError(
            f"{file.name}, row {row}: byte 0x{file.content[error.start]:02x} is not {encoding.upper()}; "
            f"convert the file, e.g. iconv -f latin1 -t utf-8"
        ) from None


def _rows(file: RawFile, text: str, separator: str, width: int, first_row: int = 1) -> Iterator[tuple[int, list[str]]]:
    """Non-blank lines as (row number from 1, fields). Split at newlines only: a title may hold other line separators."""
    empty = True
    for row, line in enumerate(text.split("\n"), start=1):
        if row < first_row or not line.strip():
            continue
        fields = line.rstrip("\r").split(separator)
        if len(fields) != width:
            raise StageError(f"{file.name}, row {row}: {len(fields)} columns where {width} are expected; correct or remove the row")
        empty = False
        yield row, fields
    if empty:
        raise StageError(f"{file.name}: no rows; the file is empty or cut short, fetch it again")


def _typed_rows(
    file: RawFile, required: dict[str, tuple[str, ...]], optional: dict[str, tuple[str, ...]] | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a RecBole file as (row number, {our name: text}); each of our names goes with the column names it may have."""
    text = decode(file, "utf-8")
    header = [column.strip().split(":")[0] for column in text.partition("\n")[0].split("\t")]
    places: dict[str, int] = {}
    for name, spellings in {**required, **(optional or {})}.items():
        found = [header.index(spelling) for spelling in spellings if spelling in header]
        if not found and name in required:
            raise StageError(
                f"{file.name}, row 1: the column '{spellings[0]}' is missing (found: {', '.join(header) if any(header) else 'nothing'}); "
                f"the first row must name the columns, as in {spellings[0]}:token"
            )
        if found:
            places[name] = found[0]
    for row, fields in _rows(file, text, "\t", len(header), first_row=2):
        yield row, {name: fields[place] for name, place in places.items()}


def _interaction(file: RawFile, row: int, user: str, item: str, timestamp: str) -> RawInteraction:
    if not user.strip() or not item.strip():
        raise StageError(f"{file.name}, row {row}: an empty user or item id; correct or remove the row")
    try:
        seconds = int(float(timestamp))
    except (ValueError, OverflowError):
        raise StageError(f"{file.name}, row {row}: timestamp '{timestamp}' is not a number of seconds; correct or remove the row") from None
    if not -(2**40) < seconds < 2**40:
        raise StageError(f"{file.name}, row {row}: timestamp {timestamp} is not in seconds since 1970; divide milliseconds by 1000")
    return RawInteraction(user.strip(), item.strip(), seconds, row)
