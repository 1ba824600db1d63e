import pytest

from stages.ingest.movielens import (
    RawFile,
    RawInteraction,
    RawItem,
    grouplens_interactions,
    grouplens_items,
    recbole_interactions,
    recbole_items,
)
from stages.shared.errors import StageError

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
FLAGS = "|".join("1" if place in (3, 5) else "0" for place in range(19))


def test_recbole_form():
    interactions = recbole_interactions(RawFile("x.inter", (INTER + "196\t242\t3\t881250949\r\n\n22\t377\t1\t878887116.0\n").encode()))
    assert interactions == [RawInteraction("196", "242", 881250949, 2), RawInteraction("22", "377", 878887116, 4)]
    items = recbole_items(RawFile("x.item", (ITEM + "543\tMisérables, Les\t1995\tDrama Musical\n9\tNo\u2028Line\t\t\n").encode()))
    assert items == [RawItem("543", "Misérables, Les", "1995", "", ["Drama", "Musical"], 2), RawItem("9", "No\u2028Line", "", "", [], 3)]


def test_recbole_columns_are_found_by_name():
    swapped = "timestamp:float\titem_id:token\tuser_id:token\n7\tb\ta\n"
    assert recbole_interactions(RawFile("x.inter", swapped.encode())) == [RawInteraction("a", "b", 7, 2)]
    item = "brand:token\ttitle:token\titem_id:token\nAcme\tLip Balm\tB00\n"
    assert recbole_items(RawFile("x.item", item.encode())) == [RawItem("B00", "Lip Balm", "", "Acme", [], 2)]


def test_grouplens_form():
    assert grouplens_interactions(RawFile("u.data", b"196\t242\t3\t881250949\n")) == [RawInteraction("196", "242", 881250949, 1)]
    line = f"543|Mis\u00e9rables, Les (1995)|01-Jan-1995||http://imdb|{FLAGS}\n"
    assert grouplens_items(RawFile("u.item", line.encode("latin-1"))) == [
        RawItem("543", "Misérables, Les (1995)", "1995", "", ["Animation", "Comedy"], 1)
    ]


@pytest.mark.parametrize(
    ("read", "content", "said"),
    [
        (recbole_interactions, b"", ["row 1", "'user_id' is missing", "must name the columns"]),
        (recbole_interactions, INTER.encode(), ["no rows", "fetch it again"]),
        (recbole_interactions, b"user_id:token\titem_id:token\n1\t2\n", ["row 1", "'timestamp' is missing", "user_id, item_id"]),
        (recbole_interactions, INTER.encode() + b"1\t2\t3\t4\n1\t2\t3\n", ["row 3", "3 columns where 4"]),
        (recbole_interactions, INTER.encode() + b"1\t2\t3\tyesterday\n", ["row 2", "timestamp 'yesterday'"]),
        (recbole_interactions, INTER.encode() + b"1\t2\t3\tnan\n", ["row 2", "timestamp 'nan'"]),
        (recbole_interactions, INTER.encode() + b"1\t2\t3\t881250949000000\n", ["row 2", "milliseconds"]),
        (recbole_interactions, INTER.encode() + b"1\t\t3\t4\n", ["row 2", "empty user or item id"]),
        (recbole_items, ITEM.encode() + b"1\tA\t1995\tDrama\n2\tMis\xe9rables\t1995\tDrama\n", ["row 3", "0xe9", "not UTF-8", "iconv"]),
        (recbole_items, b"item_id:token\n1\n", ["row 1", "'movie_title' is missing"]),
        (grouplens_interactions, b"1\t2\t3\t\xff\n", ["row 1", "0xff", "not ASCII"]),
        (grouplens_items, b"1|Toy Story (1995)|01-Jan-1995\n", ["row 1", "3 columns where 24"]),
        (grouplens_items, f"1|Toy Story|x|||{FLAGS}".replace("1|0", "7|0").encode(), ["row 1", "must be 0 or 1"]),
    ],
)
def test_bad_input_is_named(read, content, said):
    with pytest.raises(StageError) as error:
        read(RawFile("ml.file", content))
    for words in ["ml.file", *said]:
        assert words in str(error.value)
