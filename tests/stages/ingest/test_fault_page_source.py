"""Script, style and markup of web pages in place of texts, over formats, sources and columns: never a title, and always told."""

import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.ingest.build.items import item_table, usable_items
from stages.ingest.build.quarantine import TooManyBadRows, quarantine
from stages.ingest.params import IngestParams
from stages.ingest.readers.raw import PAGE_SOURCE
from stages.ingest.sources.source import read_source
from tests.support.raw_reading import read
from tests.support.raw_tables import FEW, FORMATS, folder_of, play, put, read_tables, song

SOURCES = st.sampled_from(
    [
        "var aPageStart = (new Date()).getTime();",
        "<script>if (window.ue) {}</script>",
        "</STYLE >",
        "<style type='x'>.a-box-inner{background-color:#fff}",
        ".a-box-inner{background-color:#fff}#alohaBuyBoxWidget .selected{border: 1px solid}",
        "(function(f) { f.execute() })",
        "function load() {return 1}",
        "document.getElementById('x')",
        "window.P = 1",
        "<!doctype html>",
    ]
)
PEOPLE = st.sampled_from(
    [
        "Java: getting the time, a function of (x)",
        "Style & Script: {Curly} Edition",
        "The <b>Window</b> = a door?",
        "var. alba (white)",
        "#1 Lamp {new; 2: used}",
        "C#: .NET Documents",
        "I <3 scripts",
        "Get Time Watch",
    ]
)
AROUND = st.sampled_from(["", "Lamp ", "  "])


@FEW
@given(
    source=SOURCES, before=AROUND, after=AROUND, column=st.sampled_from(["title", "brand", "categories"]), ending=st.sampled_from(FORMATS)
)
def test_page_source_is_left_out_of_every_column(source: str, before: str, after: str, column: str, ending: str) -> None:
    written = f"{before}{source}{after}".replace("|", "")
    songs = [song("a", brand="B", kinds="C") | {column if column != "categories" else "kinds": written}, song("b", brand="B", kinds="C")]
    with folder_of() as folder, pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("stages.ingest.build.items.note", said.append)
        table = {"interactions": put(folder, "plays", [play("a")], "csv"), "items": put(folder, "songs", songs, ending)}
        table |= {"brand": "brand", "categories": "kinds"}
        raw = read_source(IngestParams(source="table", folder=str(folder), table=table), folder)
        usable, _ = usable_items(raw)
        items = item_table(usable, usable["source_id"], "Kinds")
        rejected = pl.read_parquet(raw.rejected)
    if column == "title":
        assert items["source_id"].to_list() == ["b"] and rejected["reason"].to_list() == [PAGE_SOURCE] and not said
    else:
        assert items["title"].to_list() == ["Ta", "Tb"] and rejected.is_empty()
        assert items[column].to_list() == (["", "B"] if column == "brand" else [[], ["C"]])
        assert said == ["of 1 items the brand or a category is the source of a web page, and is left out"]
        assert source not in items["text"][0]


@FEW
@given(title=PEOPLE, ending=st.sampled_from(FORMATS))
def test_what_people_write_stays(title: str, ending: str) -> None:
    got = read_tables([play("a")], [song("a", title=title)], "csv", ending)
    assert [item[1] for item in got.items] == [title] and not got.rejected


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("amazon-2018", {"C_5.json": {"reviewerID": "u", "asin": "a", "unixReviewTime": 1}, "meta_C.json": {"asin": "a", "title": "{}"}}),
        (
            "amazon-2014",
            {"reviews_C_5.json": {"reviewerID": "u", "asin": "a", "unixReviewTime": 1}, "meta_C.json": {"asin": "a", "title": "{}"}},
        ),
        (
            "amazon-2023",
            {"C.jsonl": {"user_id": "u", "parent_asin": "a", "timestamp": 1}, "meta_C.jsonl": {"parent_asin": "a", "title": "{}"}},
        ),
        ("folder", {"sequences.txt": "1 1\n", "items.jsonl": {"item_id": 1, "title": "{}"}}),
    ],
)
def test_in_every_source(source: str, files: dict[str, object]) -> None:
    """The complaint says why items that stand in the file have no title."""
    with folder_of() as folder:
        for name, row in files.items():
            text = row if isinstance(row, str) else json.dumps(row).replace("{}", "var a = (new Date()).getTime();") + "\n"
            (folder / name).write_text(text)
        keys = {"category": "C"} if source.startswith("amazon") else {}
        got = read(folder, source, **keys)
        assert [reason for *_, reason, _ in got.rejected] == [PAGE_SOURCE] and not got.items
        raw = read_source(IngestParams(source=source, folder=str(folder), **keys), folder)
        usable, untitled = usable_items(raw)
        with pytest.raises(TooManyBadRows, match=rf"of {[*files][1]}: 1 x {PAGE_SOURCE}"), pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            quarantine(raw, usable, untitled, 0.01, folder / "quarantine.parquet")
