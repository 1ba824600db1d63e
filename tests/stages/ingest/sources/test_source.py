"""Which source is read, and from where."""

import gzip
import hashlib
import zipfile

import pytest

from stages.fetch import amazon_files, download
from stages.ingest.readers.raw import RawFile
from stages.ingest.sources import source
from stages.shared.core.errors import StageError
from stages.shared.sources.published import ARCHIVES, PublishedFile
from tests.support.range_server import Served, serve
from tests.support.raw_reading import read, write

FORMS = {
    "u.data": {"u__data": "1\t2\t3\t4\n", "u__item": "2|T|x|||" + "|".join("0" * 19)},
    "x.inter": {"x__inter": "user_id:token\titem_id:token\ttimestamp:float\n1\t2\t4\n", "x__item": "item_id:token\ttitle:token\n2\tT\n"},
    "ratings.dat": {"ratings__dat": "1::2::3::4\n", "movies__dat": "2::T::X\n"},
    "ratings.csv": {"ratings__csv": "userId,movieId,rating,timestamp\n1,2,3,4\n", "movies__csv": "movieId,title,genres\n2,T,X\n"},
    "sequences.txt": {"sequences__txt": "1 2\n", "items__jsonl": '{"item_id": 2, "title": "T"}\n'},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_is_recognised_by_its_files(tmp_path, form):
    got = read(write(tmp_path / "raw", README="", **FORMS[form]))
    assert [row[:2] for row in got.interactions] == [("1", "2")] and got.items[0][:2] == ("2", "T")
    assert form in got.log.name and got.log.category_word == ("Categories" if form == "sequences.txt" else "Genres")


def test_no_form_and_two_forms_list_what_is_recognised(tmp_path):
    for files, said in (({"README": ""}, "no known form"), ({**FORMS["u.data"], **FORMS["ratings.dat"]}, "several forms at once")):
        with pytest.raises(StageError) as error:
            read(write(tmp_path / said, **files))
        for words in (said, "u.data and u.item", "*.inter", "ratings.dat", "ratings.csv", "meta_{C}.json", "sequences.txt", *files):
            assert words.replace("__", ".") in str(error.value)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(StageError, match="nowhere: no such folder"):
        read(tmp_path / "nowhere")


def test_one_source_does_not_take_the_files_of_another(tmp_path):
    with pytest.raises(StageError, match=r"ratings\.dat: no such file"):
        read(write(tmp_path / "raw", **FORMS["ratings.csv"]), "movielens-1m")
    with pytest.raises(StageError, match=r"no known form"):
        read(tmp_path / "raw", "movielens-100k")


def test_equal_files_give_equal_bytes(tmp_path):
    folder = write(tmp_path / "raw", **FORMS["ratings.csv"])
    for name in ("one", "two"):
        source.read_source(source.IngestParams(source="folder", folder=str(folder)), tmp_path / name)
    for table in ("interactions", "items", "rejected"):
        assert (tmp_path / "one" / f"{table}.parquet").read_bytes() == (tmp_path / "two" / f"{table}.parquet").read_bytes()


def test_an_archive_is_fetched_and_read_unpacked(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in FORMS["ratings.dat"].items():
            archive.writestr(f"ml-1m/{name.replace('__', '.')}", content)
        archive.writestr("../../evil", "x")
    body = (tmp_path / "ml-1m.zip").read_bytes()
    served = Served()
    served.files["/ml-1m.zip"], served.cuts = body, [len(body) // 2]
    monkeypatch.setenv("GR2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with serve(served) as address:
        monkeypatch.setitem(ARCHIVES, "1m", PublishedFile(f"{address}/ml-1m.zip", len(body), hashlib.md5(body).hexdigest()))
        got = read(source="movielens-1m")
    assert got.tables == read(write(tmp_path / "raw", **FORMS["ratings.dat"])).tables
    assert got.log.files[0] == RawFile("ml-1m.zip", hashlib.sha256(body).hexdigest(), len(body))
    assert [file.name for file in got.log.files] == ["ml-1m.zip", "ratings.dat", "movies.dat"]
    assert sum(count for *_, count in served.requests) == len(body)
    folder = tmp_path / "zip"
    folder.mkdir()
    (folder / "ml-1m.zip").write_bytes(body)
    assert read(folder, "movielens-1m").tables == got.tables
    (folder / "ml-1m.zip").write_bytes(body[:-1])
    with pytest.raises(StageError, match=r"ml-1m\.zip: has .* bytes, published are"):
        read(folder, "movielens-1m")
    assert got.log.name == "MovieLens-1M (ml-1m.zip)"


@pytest.mark.parametrize(
    ("release", "form", "top"),
    [("10m", "ratings.dat", "ml-10M100K"), ("32m", "ratings.csv", "ml-32m")],
)
def test_other_releases_of_movielens_have_the_layout_of_an_earlier_one(tmp_path, monkeypatch, release, form, top):
    folder = write(tmp_path / "raw", **FORMS[form])
    with zipfile.ZipFile(tmp_path / f"ml-{release}.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"{top}/{path.name}")
    body = (tmp_path / f"ml-{release}.zip").read_bytes()
    packed = tmp_path / "zip"
    packed.mkdir()
    (packed / f"ml-{release}.zip").write_bytes(body)
    published = PublishedFile(ARCHIVES[release].url, len(body), hashlib.md5(body).hexdigest())
    monkeypatch.setitem(ARCHIVES, release, published)
    got = read(packed, f"movielens-{release}")
    assert got.tables == read(folder, f"movielens-{release}").tables == read(folder).tables
    assert got.log.name == f"MovieLens-{release.upper()} (ml-{release}.zip)"


def test_the_two_files_of_a_category_are_fetched(tmp_path, monkeypatch):
    review = b'{"reviewerID": "A", "asin": "B", "unixReviewTime": 5, "overall": 4}\n'
    meta = b"{'asin': 'B', 'title': 'T', 'categories': [['X', 'Y']]}\n"
    served = Served()
    served.files = {"/reviews_Toys_5.json.gz": gzip.compress(review), "/meta_Toys.json.gz": gzip.compress(meta)}
    monkeypatch.setenv("GR2_CACHE", str(tmp_path / "cache"))
    with serve(served) as address:
        monkeypatch.setitem(amazon_files.ADDRESSES, "2014", (f"{address}/reviews_{{C}}_5.json.gz", f"{address}/meta_{{C}}.json.gz"))
        got = read(source="amazon-2014", category="Toys")
        again = read(source="amazon-2014", category="Toys")
    assert got.interactions == [("A", "B", 5, 4.0, 1)] and got.items == [("B", "T", "", "", ["X", "Y"], 1)]
    assert again.tables == got.tables and len(served.requests) == 2
    assert got.log.files[0].sha256 == hashlib.sha256(served.files["/reviews_Toys_5.json.gz"]).hexdigest()
    assert (tmp_path / "cache" / "amazon-2014" / "meta_Toys.json.gz").exists()  # 2018 has a file of the same name


def test_published_checksums():
    assert ARCHIVES["1m"] == PublishedFile(
        "https://files.grouplens.org/datasets/movielens/ml-1m.zip", 5_917_549, "c4d9eecfca2ab87c1945afe126590906"
    )
    assert ARCHIVES["10m"] == PublishedFile(
        "https://files.grouplens.org/datasets/movielens/ml-10m.zip", 65_566_137, "ce571fd55effeba0271552578f2648bd"
    )
    assert ARCHIVES["32m"] == PublishedFile(
        "https://files.grouplens.org/datasets/movielens/ml-32m.zip", 238_950_008, "d472be332d4daa821edc399621853b57"
    )
    assert ARCHIVES["25m"] == PublishedFile(
        "https://files.grouplens.org/datasets/movielens/ml-25m.zip", 261_978_986, "6b51fb2759a8657d3bfcbfc42b592ada"
    )
