"""The page at `/`: its files, what it asks for, and what a browser makes of it."""

import json
import re
from dataclasses import replace

import httpx
import polars as pl
import pytest

from stages.serve.http.app import ServerSettings
from stages.serve.http.page.routes import FILES, FOLDER
from stages.serve.requests import RankResult, falling
from tests.support.chromium import tab
from tests.support.serve_app import listening, reversing, reversing_app

HOSTILE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"> & \"quotes\""


@pytest.fixture(scope="module")
def hostile(catalogue):
    """The catalogue with a title that is markup."""
    titles = pl.when(pl.col("item") == 6).then(pl.lit(HOSTILE)).otherwise("title")
    return replace(catalogue, items=catalogue.items.with_columns(title=titles))


def reasoned(requests):
    found = reversing(requests)
    return [replace(result, reasoning=f"</p>{HOSTILE}\nsecond line") if not result.fallback else result for result in found]


@pytest.fixture(scope="module")
def address(hostile):
    with listening(reversing_app(hostile, rank=reasoned)) as url:
        yield url


def test_the_page_loads_nothing_from_elsewhere_and_may_not(address):
    for path, (name, kind) in FILES.items():
        response = httpx.get(address + path)
        assert response.status_code == 200 and response.headers["content-type"].startswith(kind)
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"https?://|//cdn|@import", response.text), name
    page = (FOLDER / "page.html").read_text()
    assert not re.search(r"\son\w+=|style=|<style|javascript:|<script>", page), "the policy would refuse it"
    assert "innerHTML" not in (FOLDER / "page.js").read_text()


def test_what_the_page_asks_for(address, finished_run):
    slates = pl.read_parquet(finished_run / "data/retrieve/slates.parquet").filter(pl.col("split") == "test")
    users = httpx.post(f"{address}/page/users", json={}).json()["users"]
    assert sorted(users) == sorted({f"u{user}" for user in slates["user"]})
    last = slates.filter(pl.col("user") == 3).sort("position").row(-1, named=True)
    slate = httpx.post(f"{address}/page/slate", json={"user_id": "u3"}).json()
    assert [item["id"] for item in slate["items"]] == [str(item) for item in last["candidates"]]
    assert [item["id"] for item in slate["history"]] == [str(item) for item in last["history"]]
    assert slate["scores"] == last["scores"] and slate["next"] == str(last["target"])
    titles = httpx.post(f"{address}/page/titles", json={"items": ["4", "Title 5", 6, "nobody's"]}).json()["items"]
    assert titles == [
        {"id": "4", "title": "Title 4"},
        {"id": "5", "title": "Title 5"},
        {"id": "6", "title": HOSTILE},
        {"id": "nobody's", "title": ""},
    ]
    assert httpx.post(f"{address}/page/slate", json={"user_id": "nobody"}).status_code == 400
    assert httpx.post(f"{address}/page/titles", json={"items": [None]}).status_code == 400


def test_its_data_are_behind_the_key_and_the_page_is_not(catalogue):
    with listening(reversing_app(catalogue, ServerSettings(key="k"))) as url:
        assert [httpx.post(f"{url}/page/{path}", json={}).status_code for path in ("users", "slate", "titles")] == [401] * 3
        assert httpx.get(f"{url}/").status_code == 200
        assert httpx.post(f"{url}/page/users", json={}, headers={"Authorization": "Bearer k"}).status_code == 200


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with tab(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


NAMES = "[...document.querySelectorAll('#{} .name')].map((one) => one.firstChild.textContent)"


def test_a_user_is_picked_and_what_moved_is_seen(address, browser):
    browser.look(1280)
    browser.open(address)
    browser.until("document.getElementById('users').children.length > 0")
    slate = httpx.post(f"{address}/page/slate", json={"user_id": "u3"}).json()
    browser.value("document.getElementById('user').value = 'u3'; document.getElementById('rank').click()")
    browser.until("!document.getElementById('result').hidden")
    incoming = [item["title"] for item in slate["items"]]
    assert browser.value(NAMES.format("incoming")) == incoming and browser.value(NAMES.format("ranked")) == incoming[::-1]
    assert browser.value(NAMES.format("taken")) == [item["title"] for item in slate["history"]][::-1]
    marks = browser.value("[...document.querySelectorAll('#ranked .mark')].map((one) => one.textContent)")
    assert [mark for mark in marks if mark != "taken next"] == ["▲ 4", "▲ 2", "=", "▼ 2", "▼ 4"]
    assert browser.value("document.querySelector('#ranked small').textContent") == f"{slate['items'][-1]['id']} · relevance 23"
    assert browser.value("document.getElementById('message').textContent") == "4 of 5 items moved."
    assert browser.errors == []


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, False), (1280, True)])
def test_a_pasted_history_with_hostile_titles_fits_every_screen(address, browser, width, dark):
    browser.look(width, dark)
    browser.open("about:blank")
    browser.open(address)
    paste = {"history": "1\nTitle 2", "items": f"6\n4\n{HOSTILE * 5}"}
    fill = "".join(f"document.getElementById('{name}').value = {json.dumps(text)};" for name, text in paste.items())
    browser.value(f"document.querySelector('[value=pasted]').click(); {fill} document.getElementById('rank').click()")
    browser.until("!document.getElementById('result').hidden")
    assert browser.value(NAMES.format("ranked")) == ["Title 4", HOSTILE, HOSTILE * 5]
    assert browser.value("document.getElementById('reasoning').textContent") == f"</p>{HOSTILE}\nsecond line"
    assert browser.value("document.title") == "Reranker" and browser.value("document.images.length") == 0
    assert browser.value("document.scripts.length") == 1 and browser.errors == []
    assert browser.value("document.documentElement.scrollWidth") <= width, "nothing is wider than the screen"
    luminance = browser.value("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert luminance < 60 if dark else luminance > 200
    columns = browser.value("getComputedStyle(document.getElementById('result')).gridTemplateColumns.split(' ').length")
    assert columns == (1 if width < 600 else 3)


def test_a_fallback_and_an_error_are_said(hostile, browser):
    def none(requests):
        return [RankResult(tuple(range(len(one.items))), falling(len(one.items)), fallback="engine") for one in requests]

    with listening(reversing_app(hostile, ServerSettings(key="k"), none)) as url:
        browser.errors.clear()
        browser.open(f"{url}/#user=u3")
        browser.until("document.getElementById('message').className === 'bad'")
        assert browser.value("!document.getElementById('key-row').hidden && document.getElementById('result').hidden")
        key = "document.getElementById('key')"
        browser.value(f"{key}.value = 'k'; {key}.dispatchEvent(new Event('change')); document.getElementById('rank').click()")
        browser.until("!document.getElementById('result').hidden")
        assert "no rerank" in browser.value("document.getElementById('message').textContent")
        assert browser.value(NAMES.format("ranked")) == browser.value(NAMES.format("incoming"))
