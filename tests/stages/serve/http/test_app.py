"""The application over a ranker that reverses what it is given, so that every order is known."""

import asyncio
import json
import socket
import tomllib
from http.client import HTTPConnection
from threading import Event

import httpx
import pytest

from stages.serve.http.app import ServerSettings
from tests.support.project_clone import ROOT
from tests.support.serve_app import listening, reversing, reversing_app

PATHS = ("/v1/rerank", "/v2/rerank", "/rerank")
JSON = {"content-type": "application/json"}  # without it nothing is read as JSON
COHERE = {"model": "rerank-v3.5", "query": "user:u3", "documents": ["4", "nobody's", "5", "4"]}


@pytest.fixture
def ask(catalogue):
    """ask(method, path, ..., rank=, settings=) -> response of an application that begins and ends with it."""

    def asked(method, path, rank=reversing, settings=None, times=1, **options):
        return asyncio.run(_asked(method, path, rank, settings or ServerSettings(), times, options))

    async def _asked(method, path, rank, settings, times, options):
        app = reversing_app(catalogue, settings, rank)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            responses = await asyncio.gather(*(client.request(method, path, **options) for _ in range(times)))
            for response in responses:
                response.metrics = (await client.get("/metrics")).text
            return responses[0] if times == 1 else responses

    return asked


@pytest.mark.parametrize("path", PATHS)
def test_the_shape_of_cohere_jina_and_vllm(ask, path):
    response = ask("POST", path, json=COHERE)
    body = response.json()
    assert response.status_code == 200
    assert [one["index"] for one in body["results"]] == [3, 2, 0, 1], "the request's own places, duplicates apart, strangers last"
    assert [one["relevance_score"] for one in body["results"]] == [1.0, 0.75, 0.5, 0.25]
    assert all(set(one) == {"index", "relevance_score"} for one in body["results"])
    assert body["id"] == response.headers["x-request-id"] and body["meta"]["api_version"]["version"] == ("2" if "v2" in path else "1")
    assert body["usage"] == {"total_tokens": 9} and body["model"] == "data/rl/model"


def test_documents_come_back_when_asked_for_and_top_n_clamps(ask):
    documents = ["4", {"id": "5", "text": "a film", "plot": "secret"}, {"text": "Title 6"}]
    body = ask("POST", "/rerank", json={**COHERE, "documents": documents, "return_documents": True, "top_n": 2}).json()
    assert [one["document"] for one in body["results"]] == [{"text": "Title 6"}, {"id": "5", "text": "a film"}]
    assert len(ask("POST", "/rerank", json={**COHERE, "top_n": 99}).json()["results"]) == 4


def test_our_own_request(ask):
    body = ask("POST", "/rank", json={"history": ["1", "2"], "items": [4, 5, 6], "top_n": 2, "explain": True}).json()
    assert [(one["index"], one["id"], one["relevance"]) for one in body["items"]] == [(2, "6", 23), (1, "5", None)]
    assert (body["fallback"], body["reasoning"]) == (None, "because")
    quiet = ask("POST", "/rank", json={"user_id": "u3", "items": ["4", "5"]}).json()
    assert quiet["reasoning"] is None and quiet["items"][0]["relevance"] is None


def test_a_fallback_says_so_and_is_no_rerank(ask):
    response = ask("POST", "/rank", json={"user_id": "nobody", "items": ["4", "5"]})
    assert response.json()["fallback"] == "unknown_user" and [one["index"] for one in response.json()["items"]] == [0, 1]
    assert 'gr2_fallbacks_total{reason="unknown_user"} 1.0' in response.metrics and "gr2_reranked_total 0.0" in response.metrics
    assert ask("POST", "/rerank", json={**COHERE, "query": "user:nobody"}).json()["meta"]["fallback"] == "unknown_user"


def test_past_its_budget_a_request_gets_its_own_order_back(ask):
    hold = Event()

    def slow(requests):
        hold.wait(0.5)
        return reversing(requests)

    response = ask("POST", "/rank", rank=slow, settings=ServerSettings(budget=0.05), json={"user_id": "u3", "items": ["4", "5"]})
    assert response.json()["fallback"] == "time_budget" and [one["id"] for one in response.json()["items"]] == ["4", "5"]
    assert 'gr2_fallbacks_total{reason="time_budget"} 1.0' in response.metrics


def test_past_the_capacity_a_request_is_told_when_to_come_again(ask):
    hold = Event()

    def slow(requests):
        hold.wait(0.3)
        return reversing(requests)

    responses = ask("POST", "/rerank", rank=slow, settings=ServerSettings(queue=1, batch=1), times=6, json=COHERE)
    statuses = sorted(response.status_code for response in responses)
    assert set(statuses) == {200, 429} and statuses.count(200) <= 3
    assert all(int(response.headers["retry-after"]) >= 1 for response in responses if response.status_code == 429)


@pytest.mark.parametrize(
    "body",
    [
        {**COHERE, "documents": []},
        {**COHERE, "top_n": 0},
        {**COHERE, "query": "what I like"},
        {"query": "user:u3"},
        {**COHERE, "documents": [None]},
        {**COHERE, "documents": [{"text": ["x"]}], "return_documents": True},
        {**COHERE, "documents": [{"id": "4", "text": ["x"]}], "return_documents": True},
        {**COHERE, "documents": ["\ud800"]},
        {**COHERE, "documents": ["4"] * 1001},
        [],
        "text",
    ],
)
def test_what_cannot_be_read_is_a_400_with_a_reason_and_without_what_was_sent(ask, body):
    response = ask("POST", "/rerank", content=json.dumps(body), headers=JSON)
    assert response.status_code == 400 and response.json()["message"] and "what I like" not in response.text


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/rank", {"user_id": True, "items": ["4"]}, "user_id: a string or a whole number is expected"),
        ("/rank", {"user_id": "u3", "items": [4, True]}, "items.1: a string, a whole number, or an object"),
        ("/rank", {"user_id": "u3", "items": [4], "scores": [True]}, "scores.0: a number is expected"),
        ("/rank", {"user_id": "u3", "items": [4], "top_n": True}, "top_n: a whole number is expected"),
        ("/rank", {"history": [[1]], "items": [4]}, "history.0: a string, a whole number, or an object"),
        ("/rerank", {"query": [None], "documents": ["4"]}, "query.0: a string, a whole number, or an object"),
        ("/rerank", {"query": 196, "documents": ["4"]}, "query: a string, a list or an object is expected"),
        ("/rerank", {"query": {"history": [1.5]}, "documents": ["4"]}, "history item 0 is no id"),
        ("/rerank", {"query": "user:u3"}, "documents: Field required"),
        ("/rerank", "user:u3", "header `content-type: application/json`"),
        ("/page/slate", {"user_id": True}, "user_id: a string or a whole number is expected"),
        ("/page/titles", {"items": [True]}, "items.0: a string, a whole number, or an object"),
    ],
)
def test_an_error_names_the_field_as_the_body_does(ask, path, body, words):
    response = ask("POST", path, json=body)
    assert response.status_code == 400 and words in response.json()["message"]


def test_what_is_no_request_is_told_what_to_send(ask):
    form = {"content-type": "application/x-www-form-urlencoded"}  # what curl says of -d
    for expected, method, path, options in [
        ("content-type: application/json", "POST", "/rerank", {"content": json.dumps(COHERE), "headers": form}),
        ("the body is no JSON: Expecting", "POST", "/rerank", {"content": b'{"query": ', "headers": JSON}),
        ("too deep", "POST", "/rerank", {"content": b"[" * 100_000, "headers": JSON}),
        ("no such path", "POST", "/v3/rerank", {"json": COHERE}),
        ("not with this method", "GET", "/rerank", {}),
    ]:
        response = ask(method, path, **options)
        assert 400 <= response.status_code < 500 and expected in response.json()["message"] == response.json()["detail"]
    assert ask("POST", "/rank", json={"user_id": "u3", "items": [4.0, 5], "top_n": 1.0}).status_code == 200, "whole numbers to JSON"


def test_a_probe_may_ask_with_head(ask):
    for path in ("/health", "/ready", "/version", "/"):
        got, head = ask("GET", path), ask("HEAD", path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == got.headers["content-length"], "as GET, but for the body"
    assert ask("HEAD", "/rerank").status_code == 405


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"query":' + b"[" * 100_000, b"NaN", b'{"query": ' + b"9" * 5000 + b"}"])
def test_hostile_bodies_are_refused(ask, content):
    assert ask("POST", "/rerank", content=content, headers=JSON).status_code == 400


def test_a_body_too_large_is_refused_however_it_is_sent(ask):
    settings = ServerSettings(max_body=100)

    async def chunks():
        for _ in range(50):
            yield b" " * 10

    assert ask("POST", "/rerank", settings=settings, content=b" " * 101).status_code == 413
    assert ask("POST", "/rerank", settings=settings, content=chunks()).status_code == 413
    assert ask("POST", "/rerank", settings=settings, content=b" " * 100).status_code == 400


def test_a_key_is_asked_of_every_post_and_of_no_probe(ask):
    settings = ServerSettings(key="s3cret")
    assert ask("POST", "/rerank", settings=settings, json=COHERE).status_code == 401
    assert ask("POST", "/rerank", settings=settings, json=COHERE, headers={"Authorization": "Bearer other"}).status_code == 401
    assert ask("POST", "/rerank", settings=settings, json=COHERE, headers={"Authorization": "Bearer s3cret"}).status_code == 200
    assert ask("GET", "/health", settings=settings).status_code == 200


def test_a_key_need_not_be_ascii(ask):
    settings = ServerSettings(key="schlüssel")
    assert ask("POST", "/rerank", settings=settings, json=COHERE, headers={"Authorization": "Bearer schlüssel".encode()}).status_code == 200
    assert ask("POST", "/rerank", settings=settings, json=COHERE, headers={"Authorization": "Bearer schlussel"}).status_code == 401


@pytest.mark.parametrize(("key", "status"), [("", 413), ("s3cret", 401)])
def test_who_sends_too_much_sees_why_it_is_refused(catalogue, key, status):
    """A server that closes with the rest of a body unread resets the connection, and the answer with it."""
    body = b" " * (8 << 20)
    with listening(reversing_app(catalogue, ServerSettings(key=key))) as address:
        host, port = address.removeprefix("http://").split(":")
        connection = HTTPConnection(host, int(port), timeout=600)
        connection.request("POST", "/rerank", body, {"content-type": "application/json"})
        assert connection.getresponse().status == status
        connection.close()
        with socket.create_connection((host, int(port)), timeout=600) as asking:  # as curl does: first whether it may
            asking.sendall(f"POST /rerank HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\nexpect: 100-continue\r\n\r\n".encode())
            assert asking.recv(100).startswith(f"HTTP/1.1 {status}".encode())


def test_probes_and_what_is_served(ask):
    assert ask("GET", "/ready").json() == {"ready": True}
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert ask("GET", "/version").json() == {"version": declared, "model": "data/rl/model", "mode": "reasoning"}
    assert "/v1/rerank" in ask("GET", "/openapi.json").json()["paths"]
    assert ask("GET", "/nowhere/user-12").status_code == 404 and "user-12" not in ask("GET", "/nowhere/user-12").metrics


def test_the_log_has_a_line_a_request_and_nothing_of_the_user(ask, caplog):
    caplog.set_level("INFO", "gr2.serve.access")
    ask("POST", "/rerank", json=COHERE, headers={"X-Request-ID": "abc-1"})
    line = json.loads(caplog.records[0].message)
    assert (line["id"], line["path"], line["status"], line["items"], line["fallback"]) == ("abc-1", "/rerank", 200, 4, None)
    assert "u3" not in caplog.text
    ask("POST", "/rerank", json=COHERE, headers={"X-Request-ID": 'x" injected'})
    assert "injected" not in caplog.text
