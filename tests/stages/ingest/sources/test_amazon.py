import gzip
import json

import pytest

from stages.fetch.amazon_files import amazon_files
from stages.shared.core.errors import StageError
from stages.shared.core.params import validate_section
from stages.shared.sources.params import FetchParams
from tests.support.raw_reading import read, write

REVIEW = {"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1_386_028_800, "reviewText": "x" * 50}
REVIEW_2023 = {"user_id": "AE1", "parent_asin": "B1", "asin": "B0", "rating": 4.0, "timestamp": 1_588_687_728_923}
META = {"asin": "B1", "title": 'It\'s a "Toy"', "brand": "Acme", "categories": [["Toys", "Dolls"], ["Gifts"]], "price": 1.5}


def lines(*records) -> str:
    return "".join(record if isinstance(record, str) else json.dumps(record) + "\n" for record in records)


@pytest.mark.parametrize("packed", [False, True])
def test_2014(tmp_path, packed):
    meta = (
        f"{META!r}\n"
        + "{'asin': 'B2', 'title': 'caf\\xe9 \\ud83d\\ude00 \\&', 'categories': [[]]}\n"
        + lines({**META, "asin": "B3", "brand": None})
    )
    files = {"reviews_Toys_5.json": lines(REVIEW, {**REVIEW, "asin": "B2", "overall": None}), "meta_Toys.json": meta}
    folder = tmp_path / "raw"
    folder.mkdir()
    for name, text in files.items():
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    got = read(folder, "amazon-2014", category="Toys")
    assert got.interactions == [("A1", "B1", 1_386_028_800, 5.0, 1), ("A1", "B2", 1_386_028_800, None, 2)]
    assert got.items == [
        ("B1", 'It\'s a "Toy"', "", "Acme", ["Toys", "Dolls"], 1),
        ("B2", "café \U0001f600 \\&", "", "", [], 2),
        ("B3", 'It\'s a "Toy"', "", "", ["Toys", "Dolls"], 3),
    ]
    assert got.log.category_word == "Categories" and got.log.time == "seconds"
    assert read(folder).tables == got.tables


def test_2018(tmp_path):
    meta = {"asin": "B1", "title": "Balm", "brand": "Acme", "category": ["Beauty", "Lips"], "description": ["x"]}
    folder = write(tmp_path / "raw", All_Beauty__json=lines(REVIEW), meta_All_Beauty__json=lines(meta, {"asin": "B2", "title": "T"}))
    got = read(folder, "amazon-2018", category="All_Beauty")
    assert got.interactions == [("A1", "B1", 1_386_028_800, 5.0, 1)]
    assert got.items == [("B1", "Balm", "", "Acme", ["Beauty", "Lips"], 1), ("B2", "T", "", "", [], 2)]
    assert read(folder).tables == got.tables


def test_2023(tmp_path):
    base = {"parent_asin": "B1", "title": "Balm", "categories": ["Beauty", "Lips"], "store": "Acme", "details": {"Brand": "Other"}}
    metas = [base, {**base, "parent_asin": "B2", "store": None}, {**base, "parent_asin": "B3", "store": None, "details": "x"}]
    folder = write(tmp_path / "raw", Toys__jsonl=lines(REVIEW_2023), meta_Toys__jsonl=lines(*metas))
    got = read(folder, "amazon-2023", category="Toys")
    assert got.interactions == [("AE1", "B1", 1_588_687_728, 4.0, 1)]
    assert [(item[0], item[3], item[4]) for item in got.items] == [
        (f"B{n}", brand, ["Beauty", "Lips"]) for n, brand in ((1, "Acme"), (2, "Other"), (3, ""))
    ]
    assert read(folder).tables == got.tables


def test_rating_files_have_another_order_in_each_generation(tmp_path):
    one = write(tmp_path / "2014", ratings_Toys__csv="A1,B1,5.0,1386028800\n", meta_Toys__json=repr(META))
    other = write(tmp_path / "2018", Toys__csv="B1,A1,5.0,1386028800\n", meta_Toys__json=json.dumps(META))
    expected = [("A1", "B1", 1_386_028_800, 5.0, 1)]
    assert read(one).interactions == expected and read(one, "amazon-2014", category="Toys").interactions == expected
    assert read(other).interactions == expected and read(other, "amazon-2018", category="Toys").interactions == expected


def test_the_core_goes_before_the_whole(tmp_path):
    folder = write(
        tmp_path / "raw",
        reviews_T__json=lines(REVIEW, REVIEW),
        reviews_T_5__json=lines(REVIEW),
        ratings_T__csv="x",
        meta_T__json=repr(META),
    )
    assert [file.name for file in read(folder, "amazon-2014", category="T").log.files] == ["reviews_T_5.json", "meta_T.json"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{'reviewerID': 'A1'}", "not valid JSON"),  # a literal, where JSON is expected
        ('{"reviewerID": "A1"', "not valid JSON"),
        ('["A1"]', "not a JSON object"),
        (b'{"reviewerID": "\xff"}', "not UTF-8"),
        (json.dumps({key: value for key, value in REVIEW.items() if key != "asin"}), "missing field asin"),
        (json.dumps({**REVIEW, "reviewerID": None}), "missing field reviewerID"),
        (json.dumps({**REVIEW, "reviewerID": " "}), "empty user id"),
        (json.dumps({**REVIEW, "asin": ["B1"]}), "empty item id"),
        (json.dumps({**REVIEW, "unixReviewTime": "12 1, 2013"}), "timestamp is not a number"),
        (json.dumps({**REVIEW, "unixReviewTime": True}), "timestamp is not a number"),
        (json.dumps({**REVIEW, "unixReviewTime": 1_386_028_800_000}), "timestamp is not in seconds since 1970"),
        (json.dumps({**REVIEW, "overall": "five"}), "rating is not a number"),
    ],
)
def test_a_bad_review_is_rejected_alone(tmp_path, line, reason):
    line = line.encode() if isinstance(line, str) else line
    log = lines(REVIEW).encode() + line + b"\r\n" + lines(REVIEW).encode()
    got = read(write(tmp_path / "raw", reviews_T_5__json=log, meta_T__json=repr(META)))
    assert got.rejected == [("reviews_T_5.json", 2, reason, line.decode(errors="replace")[:200])]
    assert [row[4] for row in got.interactions] == [1, 3] and got.log.interaction_rows == 3


def test_milliseconds_are_expected_in_2023(tmp_path):
    log = lines({**REVIEW_2023, "timestamp": 2**35 * 1000}, {**REVIEW_2023, "timestamp": 2**35 * 1000 - 1})
    got = read(write(tmp_path / "raw", T__jsonl=log, meta_T__jsonl=lines({"parent_asin": "B1", "title": "T"})))
    assert [row[2] for row in got.interactions] == [2**35 - 1]
    assert [(row[1], row[2]) for row in got.rejected] == [(1, "timestamp is not in milliseconds since 1970")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{'asin': 'B9', 'title': open('x')}", "not valid JSON"),
        ("__import__('os').abort()", "not valid JSON"),
        ("[" * 5000, "not valid JSON"),
        ("-" * 200_000 + "1", "not valid JSON"),
        ("{'asin': 'B9', 'title': '" + "x" * 2**20 + "'}", "not valid JSON"),
        ("('B9',)", "not a JSON object"),
        ("{'title': 'x'}", "missing field asin"),
        ("{'asin': 'B9', 'title': ''}", "no title"),
        ("{'asin': 'B9'}", "no title"),
        ("{'asin': 'B9', 'title': ['x', 'y']}", "field title is a list where a text is expected"),
        ("{'asin': 'B9', 'title': 'x', 'brand': {'name': 'y'}}", "field brand is an object where a text is expected"),
        ("{'asin': 'B9', 'title': 'x', 'categories': [[True]]}", "categories hold true or false where a text is expected"),
        ("{'asin': 'B1', 'title': 'Another'}", "item stands twice"),
    ],
)
def test_a_bad_item_is_rejected_alone(tmp_path, line, reason):
    got = read(write(tmp_path / "raw", reviews_T_5__json=lines(REVIEW), meta_T__json=f"{META!r}\n{line}\n{ {**META, 'asin': 'B3'}!r}\n"))
    assert got.rejected == [("meta_T.json", 2, reason, line[:200])]
    assert [item[0] for item in got.items] == ["B1", "B3"] and got.log.item_rows == 3


def test_the_same_product_again_word_for_word_is_skipped(tmp_path):
    got = read(write(tmp_path / "raw", reviews_T_5__json=lines(REVIEW), meta_T__json=f"{META!r}\n" * 3))
    assert [(item[0], item[5]) for item in got.items] == [("B1", 1)]
    assert got.rejected == [] and got.log.item_rows == 3


def test_what_is_missing_is_named(tmp_path):
    folder = write(tmp_path / "raw", reviews_Toys_5__json=lines(REVIEW), meta_Toys__json=repr(META))
    with pytest.raises(StageError, match=r"reviews_Beauty_5\.json, reviews_Beauty_5\.json\.gz.*ingest\.category"):
        read(folder, "amazon-2014", category="Beauty")
    write(folder, reviews_Books_5__json=lines(REVIEW), meta_Books__json=repr(META))
    with pytest.raises(StageError, match=r"several categories \(Books, Toys\)"):
        read(folder)
    assert read(folder, category="Toys").log.name == "Amazon Reviews 2014, Toys (reviews_Toys_5.json)"


def test_official_addresses():
    assert [file.url for file in amazon_files("2014", "Beauty")] == [
        "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/reviews_Beauty_5.json.gz",
        "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/meta_Beauty.json.gz",
    ]
    assert [file.url for file in amazon_files("2018", "All_Beauty")] == [
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/categoryFilesSmall/All_Beauty_5.json.gz",
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/metaFiles2/meta_All_Beauty.json.gz",
    ]
    assert [file.url for file in amazon_files("2023", "All_Beauty")] == [
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw/review_categories/All_Beauty.jsonl.gz",
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw/meta_categories/meta_All_Beauty.jsonl.gz",
    ]
    for name in ("../x", "a/b", "a?b", "é"):
        with pytest.raises(StageError, match=r"params\.yaml: ingest: .*category: .*is no name of a category"):
            validate_section("ingest", FetchParams, {"source": "amazon-2014", "category": name}, "params.yaml")
