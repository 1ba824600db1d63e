"""Goodreads, Steam and Yelp by the layout of their official files."""

import gzip
import json

import pytest

from stages.shared.core.errors import StageError
from tests.support.raw_reading import read, write


def lines(*records):
    return "".join(f"{json.dumps(record)}\n" for record in records)


SHELVED = {
    "user_id": "8842281e",
    "book_id": "24375664",
    "review_id": "x",
    "is_read": True,
    "rating": 5,
    "date_added": "Fri Aug 25 13:55:02 -0700 2017",
}
BOOK = {
    "book_id": "24375664", "title": "W.C. Fields: A Life on Film", "publication_year": "1984", "publisher": "St. Martin's Press",
    "popular_shelves": [{"count": "9", "name": "to-read"}, {"count": "3", "name": "biography"}, {"count": "1", "name": "film"}],
}  # fmt: skip
REVIEW = {
    "username": "Chaos Syren", "hours": 0.1, "products": 41, "product_id": "725280", "page_order": 0, "date": "2017-12-17",
    "text": "it's fun", "early_access": False,
}  # fmt: skip
GAME = {
    "publisher": "Kotoshiro", "developer": "Koto", "genres": ["Action", "Indie"], "app_name": "Lost Summoner Kitty",
    "release_date": "2018-01-04", "id": "725280", "price": 4.99,
}  # fmt: skip
YELP = {"review_id": "r", "user_id": "hG7b", "business_id": "tnhf", "stars": 4.0, "text": "Nice.", "date": "2016-03-09 20:56:38"}
BUSINESS = {
    "business_id": "tnhf",
    "name": "Garaje",
    "city": "San Francisco",
    "stars": 4.5,
    "categories": "Mexican, Burgers, Gastropubs",
    "hours": None,
}


def test_goodreads(tmp_path):
    unrated = SHELVED | {"rating": 0, "user_id": "b"}
    bad = SHELVED | {"date_added": ""}
    log = gzip.compress(lines(SHELVED, unrated, bad).encode())
    folder = write(tmp_path / "raw", goodreads_interactions_poetry__json__gz=log, goodreads_books_poetry__json=lines(BOOK, BOOK))
    got = read(folder, "goodreads", category="poetry")
    assert got.interactions == [("8842281e", "24375664", 1503694502, 5.0, 1), ("b", "24375664", 1503694502, None, 2)]
    assert got.items == [("24375664", BOOK["title"], "1984", "St. Martin's Press", ["biography", "film"], 1)]
    assert [row[1] for row in got.rejected] == [3] and got.log.category_word == "Genres"
    assert read(folder).tables == got.tables  # the one genre that is there
    write(folder, goodreads_interactions_romance__json="{}")
    with pytest.raises(StageError, match=r"several genres \(poetry, romance\)"):
        read(folder)
    with pytest.raises(StageError, match=r"needs goodreads_books_romance\.json"):
        read(folder, "goodreads", category="romance")


def test_all_of_goodreads(tmp_path):
    folder = write(tmp_path / "raw", goodreads_interactions_dedup__json=lines(SHELVED), goodreads_books__json=lines(BOOK))
    assert read(folder, "goodreads").interactions == read(folder).interactions != []


def test_steam(tmp_path):
    """Its lines are Python literals, as `repr` of Python 2 wrote them."""
    review = repr(REVIEW).replace("'username': '", "u'username': u'")
    folder = write(tmp_path / "raw", steam_reviews__json=f"{review}\n", steam_games__json=f"{GAME!r}\n{{u'title': u'No id'}}\n")
    got = read(folder, "steam")
    assert got.interactions == [("Chaos Syren", "725280", 1513468800, None, 1)]
    assert got.items == [("725280", "Lost Summoner Kitty", "2018", "Koto", ["Action", "Indie"], 1)]
    assert [row[1:3] for row in got.rejected] == [(2, "missing field id")]
    assert read(folder).tables == got.tables


def test_yelp(tmp_path):
    closed = BUSINESS | {"business_id": "z", "categories": None}
    folder = write(
        tmp_path / "raw", yelp_academic_dataset_review__json=lines(YELP), yelp_academic_dataset_business__json=lines(BUSINESS, closed)
    )
    got = read(folder, "yelp")
    assert got.interactions == [("hG7b", "tnhf", 1457556998, 4.0, 1)]
    assert [item[:5] for item in got.items] == [
        ("tnhf", "Garaje", "", "", ["Mexican", "Burgers", "Gastropubs"]),
        ("z", "Garaje", "", "", []),
    ]
    assert read(folder).tables == got.tables and "agreement" in got.log.licence


def test_yelp_is_not_fetched():
    with pytest.raises(ValueError, match=r"yelp needs folder: .*https://business\.yelp\.com"):
        read(source="yelp")
