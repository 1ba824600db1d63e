import gzip

import pytest

from stages.shared.core.errors import StageError
from tests.support.raw_reading import read, write

FLAGS = "|".join("1" if place in (3, 5) else "0" for place in range(19))
RATINGS = "userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n"
MOVIES = "movieId,title,genres\n296,Pulp Fiction (1994),Comedy|Crime\n"


def test_100k(tmp_path):
    items = f"543|Mis\u00e9rables, Les (1995)|01-Jan-1995||http://imdb|{FLAGS}\n1|Unknown|||x|{FLAGS}\r\n".encode("latin-1")
    folder = write(tmp_path / "raw", u__data="196\t242\t3\t881250949\n\n22\t377\t1\t878887116\r\n", u__item=items)
    got = read(folder)
    assert got.interactions == [("196", "242", 881250949, 3.0, 1), ("22", "377", 878887116, 1.0, 3)]
    assert got.items == [
        ("543", "Misérables, Les (1995)", "1995", "", ["Animation", "Comedy"], 1),
        ("1", "Unknown", "", "", ["Animation", "Comedy"], 2),
    ]
    assert got.rejected == [] and got.log.category_word == "Genres" and got.log.name == "MovieLens-100K (u.data)"
    assert read(folder, "movielens-100k").tables == got.tables


def test_1m(tmp_path):
    movies = "1::Toy Story (1995)::Animation|Children's\n73::Mis\u00e9rables, Les (1995)::Drama\n9::No Genre::\n".encode("latin-1")
    folder = write(tmp_path / "raw", ratings__dat="1::1193::5::978300760\n6040::73::4::956703932\n", movies__dat=movies)
    got = read(folder)
    assert got.interactions == [("1", "1193", 978300760, 5.0, 1), ("6040", "73", 956703932, 4.0, 2)]
    assert got.items == [
        ("1", "Toy Story (1995)", "", "", ["Animation", "Children's"], 1),
        ("73", "Misérables, Les (1995)", "", "", ["Drama"], 2),
        ("9", "No Genre", "", "", [], 3),
    ]
    assert read(folder, "movielens-1m").tables == got.tables


def test_25m(tmp_path):
    movies = (
        '\ufeffmovieId,title,genres\r\n11,"American President, The (1995)",Comedy|Drama\r\n'
        '7789,"""11\'09""01 - September 11"" (2002)",Drama\r\n9,No\u2028Line (1999),(no genres listed)\r\n'
    )
    folder = write(tmp_path / "raw", ratings__csv="userId,movieId,rating,timestamp\r\n1,11,4.5,1147880044\r\n", movies__csv=movies)
    got = read(folder)
    assert got.interactions == [("1", "11", 1147880044, 4.5, 2)]
    assert got.items == [
        ("11", "American President, The (1995)", "", "", ["Comedy", "Drama"], 2),
        ("7789", '"11\'09"01 - September 11" (2002)', "", "", ["Drama"], 3),
        ("9", "No\u2028Line (1999)", "", "", [], 4),
    ]
    assert read(folder, "movielens-25m").tables == got.tables


def test_a_gzipped_file_is_known_by_its_first_bytes(tmp_path):
    folder = write(tmp_path / "raw", ratings__csv=gzip.compress(RATINGS.encode()), movies__csv=MOVIES)
    assert read(folder).interactions == [("1", "296", 1147880044, 5.0, 2)]


@pytest.mark.parametrize(
    ("log", "reason", "row"),
    [
        ("1\t2\t3\n", "3 columns where 4 are expected", 2),
        ("1\t2\t3\tyesterday\n", "timestamp is not a number", 2),
        ("1\t2\t3\t\n", "timestamp is not a number", 2),
        ("1\t2\t3\tnan\n", "timestamp is not a number", 2),
        ("1\t2\t3\tinf\n", "timestamp is not a number", 2),
        ("1\t2\t3\t1732182000000\n", "timestamp is not in seconds since 1970", 2),
        (f"1\t2\t3\t{2**35}\n", "timestamp is not in seconds since 1970", 2),
        ("1\t2\t3\t9" + "9" * 30 + "\n", "timestamp is not in seconds since 1970", 2),
        ("  \t2\t3\t4\n", "empty user id", 2),
        ("1\t\t3\t4\n", "empty item id", 2),
        ("1\t2\tgood\t4\n", "rating is not a number", 2),
        ("\n\n1\t2\tnan\t4\n", "rating is not a number", 4),
    ],
)
def test_a_bad_interaction_is_rejected_alone(tmp_path, log, reason, row):
    good = f"7\t8\t\t{2**35 - 1}\n"
    item = f"1|A|x|||{FLAGS}\n"
    got = read(write(tmp_path / "raw", u__data=good + log + good, u__item=item))
    assert got.rejected == [("u.data", row, reason, log.strip("\n"))]
    assert [line[:4] for line in got.interactions] == [("7", "8", 2**35 - 1, None)] * 2
    assert got.log.interaction_rows == 3 and got.log.item_rows == 1


def test_bytes_that_are_no_utf8_spoil_their_row_only(tmp_path):
    got = read(write(tmp_path / "raw", u__data=b"1\t2\t3\t4\n\xff\t2\t3\t4\n5\t6\t3\t4\n", u__item=f"1|A|x|||{FLAGS}\n"))
    assert got.rejected == [("u.data", 2, "not UTF-8", "\ufffd\t2\t3\t4")]
    assert [row[0] for row in got.interactions] == ["1", "5"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2|Toy Story (1995)|01-Jan-1995", "3 columns where 24 are expected"),
        (f"2|Toy Story|x|||{FLAGS}".replace("0|0", "7|0", 1), "genre flags are not 0 or 1"),
        (f" |Toy Story|x|||{FLAGS}", "empty item id"),
        (f"2| |x|||{FLAGS}", "no title"),
        (f"1|Another|x|||{FLAGS}", "item stands twice"),
        (f"1|A|x|||{FLAGS}", "item stands twice"),
    ],
)
def test_a_bad_item_is_rejected_alone(tmp_path, line, reason):
    first, last = f"1|A|x|||{FLAGS}\n", f"3|C|x|||{FLAGS}\n"
    got = read(write(tmp_path / "raw", u__data="1\t1\t3\t4\n", u__item=f"{first}{line}\n{last}"))
    assert got.rejected == [("u.item", 2, reason, line[:200])]
    assert [(item[0], item[1], item[5]) for item in got.items] == [("1", "A", 1), ("3", "C", 3)]
    assert got.log.item_rows == 3


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('2,"No end (1999),Drama', "quotes do not match"),
        ('2,"A"B,Drama', "quotes do not match"),
        ('2,"A",B,Drama', "4 columns where 3 are expected"),
    ],
)
def test_quotes_that_do_not_match_spoil_their_row_only(tmp_path, line, reason):
    got = read(write(tmp_path / "raw", ratings__csv=RATINGS, movies__csv=f'{MOVIES}{line}\n3,"C, D",Drama\n'))
    assert got.rejected == [("movies.csv", 3, reason, line)]
    assert [item[1] for item in got.items] == ["Pulp Fiction (1994)", "C, D"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"ratings__csv": RATINGS}, ["movies.csv: no such file"]),
        ({"ratings__csv": b"", "movies__csv": MOVIES}, ["ratings.csv, row 1", "'userId' is missing", "found: nothing"]),
        ({"ratings__csv": "userId,movieId,rating\n1,2,3\n", "movies__csv": MOVIES}, ["'timestamp' is missing", "userId, movieId, rating"]),
        ({"ratings__csv": RATINGS.splitlines()[0], "movies__csv": MOVIES}, ["ratings.csv: no rows", "fetch it again"]),
        ({"ratings__csv": RATINGS.encode("utf-16-le"), "movies__csv": MOVIES}, ["ratings.csv, row 1", "UTF-16", "iconv"]),
        ({"ratings__csv": gzip.compress(RATINGS.encode())[:-9], "movies__csv": MOVIES}, ["ratings.csv: cut short or damaged"]),
        ({"ratings__csv": b"userId,movieId,rating,timestamp,\xff\n", "movies__csv": MOVIES}, ["ratings.csv, row 1: not UTF-8"]),
        ({"u__data": b"", "u__item": b""}, ["u.data: no rows"]),
        ({"u__data": b"\n \n", "u__item": b""}, ["u.data: no rows"]),
    ],
)
def test_what_is_wrong_with_a_whole_file_ends_the_stage(tmp_path, files, said):
    with pytest.raises(StageError) as error:
        read(write(tmp_path / "raw", **files))
    for words in said:
        assert words in str(error.value)
