"""GroupLens's own files of MovieLens-100K (u.data, u.item), 1M and 10M (ratings.dat, movies.dat), 25M and 32M (ratings.csv, movies.csv)."""

import polars as pl

from stages.ingest.readers.chunks import Input
from stages.ingest.readers.delimited import Columns, read_delimited
from stages.ingest.readers.raw import RawFile
from stages.ingest.readers.validate import StagingTables

# u.item: five text columns, then one 0/1 column per genre, in this order (u.genre of the same archive).
# fmt: off
_GENRES = [
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
]
# fmt: on
_FLAGS = [f"flag_{place}" for place in range(len(_GENRES))]
_NO_GENRES = "(no genres listed)"
_RATINGS: dict[str, tuple[str, ...]] = {"user": (), "item": (), "rating": (), "timestamp": ()}


def read_u_data(source: Input, scratch: StagingTables) -> RawFile:
    """User, item, rating, timestamp; tab-separated, no header."""
    return read_delimited(source, "\t", Columns(_RATINGS), lambda table: scratch.add_interactions(source.name, table), numbers_in="s")


def read_u_item(source: Input, scratch: StagingTables) -> RawFile:
    """Latin-1, `|`-separated, no header: id, title, release date, video date, address, 19 genre flags."""

    def take(table: pl.DataFrame) -> None:
        flags = [pl.when(pl.col(flag) == "1").then(pl.lit(genre)) for flag, genre in zip(_FLAGS, _GENRES, strict=True)]
        # A file of this name with its columns in another order shows here.
        wrong = pl.when(~pl.all_horizontal(pl.col(_FLAGS).is_in(["0", "1"]))).then(pl.lit("genre flags are not 0 or 1"))
        scratch.add_items(
            source.name,
            table.with_columns(
                pl.coalesce("reason", wrong).alias("reason"),
                pl.col("year").str.tail(4),  # of 01-Jan-1995
                brand=pl.lit(""),
                categories=pl.concat_list(flags).list.drop_nulls(),
            ),
        )

    names: dict[str, tuple[str, ...]] = dict.fromkeys(["source_id", "title", "year", "video_date", "address", *_FLAGS], ())
    return read_delimited(source, "|", Columns(names), take, encoding="latin-1")


def read_ratings_dat(source: Input, scratch: StagingTables) -> RawFile:
    """User, item, rating, timestamp; separated by `::`, no header."""
    return read_delimited(source, "::", Columns(_RATINGS), lambda table: scratch.add_interactions(source.name, table), numbers_in="s")


def read_movies_dat(source: Input, scratch: StagingTables) -> RawFile:
    """Latin-1: id, title, genres; separated by `::`, no header."""
    columns = Columns({"source_id": (), "title": (), "categories": ()})
    return read_delimited(source, "::", columns, lambda table: _add_movies(source, table, scratch), encoding="latin-1")


def read_ratings_csv(source: Input, scratch: StagingTables) -> RawFile:
    columns = Columns({"user": ("userId",), "item": ("movieId",), "rating": ("rating",), "timestamp": ("timestamp",)})
    return read_delimited(source, ",", columns, lambda table: scratch.add_interactions(source.name, table), quoted=True, numbers_in="s")


def read_movies_csv(source: Input, scratch: StagingTables) -> RawFile:
    columns = Columns({"source_id": ("movieId",), "title": ("title",), "categories": ("genres",)})
    return read_delimited(source, ",", columns, lambda table: _add_movies(source, table, scratch), quoted=True)


def _add_movies(source: Input, table: pl.DataFrame, scratch: StagingTables) -> None:
    """The year stays in the title: cleaning finds it there."""
    genres = pl.col("categories").fill_null("").str.strip_chars()
    listed = pl.when(genres.is_in(["", _NO_GENRES])).then(pl.lit([], pl.List(pl.String))).otherwise(genres.str.split("|"))
    scratch.add_items(source.name, table.with_columns(year=pl.lit(""), brand=pl.lit(""), categories=listed))
