"""KuaiRec by the layout of its official files: unpacked, and in the archive."""

import hashlib
import zipfile

import pytest

from stages.fetch import other_files
from stages.shared.core.errors import StageError
from stages.shared.sources.published import PublishedFile
from tests.support.range_server import Served, serve
from tests.support.raw_reading import read, write

LOG = (
    "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
    "0,3649,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.273397\n"
    "0,9598,13665,10984,2020-07-05 00:13:41.297,20200705,1593879221.297,1.244082\n"
    "1,7,1,10984,,,,0.1\n"
)
VIDEOS = (
    "video_id,manual_cover_text,caption,topic_tag,first_level_category_id,first_level_category_name,second_level_category_id,"
    "second_level_category_name,third_level_category_id,third_level_category_name\n"
    '3649,UNKNOWN,"精神小伙,路难走",[],8,颜值,673,颜值随拍,-124,UNKNOWN\n'
    "9598,封面,,[],27,高新数码,-124,UNKNOWN,-124,UNKNOWN\n"
    "7,UNKNOWN,UNKNOWN,[],-124,UNKNOWN,-124,UNKNOWN,-124,UNKNOWN\n"
)


def test_unpacked(tmp_path):
    folder = write(tmp_path / "raw", big_matrix__csv=LOG, kuairec_caption_category__csv=VIDEOS, small_matrix__csv="x\n")
    got = read(folder, "kuairec")
    assert [row[:3] for row in got.interactions] == [("0", "3649", 1593878903), ("0", "9598", 1593879221)]
    assert got.interactions[0][3] == pytest.approx(1.273397)
    assert [item[:5] for item in got.items] == [
        ("3649", "精神小伙,路难走", "", "", ["颜值", "颜值随拍"]),
        ("9598", "封面", "", "", ["高新数码"]),
        ("7", "Video 7", "", "", []),
    ]
    assert [row[1:3] for row in got.rejected] == [(4, "timestamp is not a number")] and got.log.name == "KuaiRec (big_matrix.csv)"
    assert read(folder).tables == got.tables


def test_the_archive_is_fetched_and_read_unpacked(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "KuaiRec.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (("big_matrix.csv", LOG), ("kuairec_caption_category.csv", VIDEOS)):
            archive.writestr(f"KuaiRec 2.0/data/{name}", content)
    body = (tmp_path / "KuaiRec.zip").read_bytes()
    served = Served()
    served.files["/KuaiRec.zip"] = body
    monkeypatch.setenv("GR2_CACHE", str(tmp_path / "cache"))
    with serve(served) as address:
        monkeypatch.setattr(other_files, "KUAIREC", PublishedFile(f"{address}/KuaiRec.zip", md5=hashlib.md5(body).hexdigest()))
        got = read(source="kuairec")
    assert got.tables == read(write(tmp_path / "raw", big_matrix__csv=LOG, kuairec_caption_category__csv=VIDEOS)).tables
    assert [file.name for file in got.log.files] == ["KuaiRec.zip", "big_matrix.csv", "kuairec_caption_category.csv"]


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(StageError, match=r"needs big_matrix\.csv \(or small_matrix\.csv\)"):
        read(write(tmp_path / "raw", README="x"), "kuairec")
    with pytest.raises(StageError, match=r"kuairec_caption_category\.csv: no such file"):
        read(write(tmp_path / "raw", small_matrix__csv=LOG), "kuairec")


def test_official_addresses():
    assert str(other_files.KUAIREC) == (
        "https://zenodo.org/records/18164998/files/KuaiRec.zip (no size is published, md5 261550d472c48eff4990fb13c0e5bcf7)"
    )
    assert [file.url.rpartition("/goodreads/")[2] for file in other_files.other_files("goodreads", "poetry")] == [
        "byGenre/goodreads_interactions_poetry.json.gz",
        "byGenre/goodreads_books_poetry.json.gz",
    ]
    assert [file.name for file in other_files.other_files("goodreads", "")] == [
        "goodreads_interactions_dedup.json.gz",
        "goodreads_books.json.gz",
    ]
    assert [file.name for file in other_files.other_files("steam", "")] == ["steam_reviews.json.gz", "steam_games.json.gz"]
