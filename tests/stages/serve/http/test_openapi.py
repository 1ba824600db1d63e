"""Whatever is sent, nothing is answered with a 500, and every answer is one that the OpenAPI description has."""

import json
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.serve_app import listening, reversing_app

NAMES = st.sampled_from(["4", "5", "nobody's", "user:u3", "u3", "<script>alert(1)</script>", "<|endoftext|>", "\x00", "é" * 300, ""])
SCALARS = st.none() | st.booleans() | st.integers() | st.integers(-3, 12) | st.floats(allow_nan=False) | st.text(max_size=20) | NAMES
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=4), max_leaves=12
)
FINE: dict[str, Any] = {
    "query": "user:u3",
    "documents": ["4", "5", "6"],
    "items": ["4", "5", "6"],
    "user_id": "u3",
    "history": ["1", "2"],
    "scores": [3, 2.5, 1],
    "top_n": 2,
    "return_documents": True,
    "explain": True,
    "model": "m",
}


@pytest.fixture(scope="module")
def address(catalogue):
    with listening(reversing_app(catalogue)) as url:
        yield url


@pytest.fixture(scope="module")
def description(address):
    return httpx.get(f"{address}/openapi.json").json()


def properties(description, path):
    reference = description["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    return list(description["components"]["schemas"][reference.rsplit("/", 1)[-1]]["properties"])


def conforms(description, path, response):
    """jsonschema's verdict on the answer, by the schema that the description gives for its status."""
    answers = description["paths"][path]["post"]["responses"]
    declared = answers.get(str(response.status_code)) or answers.get(f"{response.status_code // 100}XX")
    assert declared, f"{path} answers {response.status_code}, which is not declared"
    schema = {**declared["content"]["application/json"]["schema"], "components": description["components"]}
    jsonschema.validate(response.json(), schema)


def test_bodies_that_are_almost_right(address, description):
    paths = [path for path, operations in description["paths"].items() if "post" in operations and path != "/page/users"]
    assert {"/v1/rerank", "/v2/rerank", "/rerank", "/rank", "/page/slate", "/page/titles"} == set(paths)
    answered = set()

    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data):
        path = data.draw(st.sampled_from(paths))
        keys = properties(description, path)
        body = {key: FINE[key] for key in keys if key in FINE}
        if path == "/rank":
            del body[data.draw(st.sampled_from(["user_id", "history"]))]
        for key in data.draw(st.lists(st.sampled_from(keys), max_size=2)):
            body[key] = data.draw(VALUES)
        content = json.dumps(body).encode()
        response = client.post(address + path, content=content, headers={"content-type": "application/json"})
        assert response.status_code in (200, 400), (path, body, response.text)
        conforms(description, path, response)
        answered.add((path, response.status_code))

    with httpx.Client() as client:
        check()
    assert answered >= {(path, status) for path in paths for status in (200, 400)}, "it never gets past the first check, or never fails one"


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b'{"query": "user:u3", "documents": ["4"]}', {"content-type": "text/plain"}),
        (b"<query/>", {"content-type": "application/xml"}),
        (b"query=user%3Au3", {"content-type": "application/x-www-form-urlencoded"}),
        (b'{"query": "user:u3", "documents": ["4"], "top_n": 1e999}', {"content-type": "application/json"}),
        (b'{"query": {"history": ' + b'{"id":' * 5000 + b"1" + b"}" * 5001 + b"}", {"content-type": "application/json"}),
        (b'{"query": "user:u3", "documents": ["\xff\xfe"]}', {"content-type": "application/json"}),
        (b"\x1f\x8b", {"content-type": "application/json", "content-encoding": "gzip"}),
        (b" " * ((1 << 20) + 1), {"content-type": "application/json"}),
    ],
)
def test_hostile_bodies_are_refused_with_a_reason(address, description, content, headers):
    for path in ("/rerank", "/rank"):
        response = httpx.post(address + path, content=content, headers=headers)
        assert 400 <= response.status_code < 500, (path, response.status_code)
        conforms(description, path, response)


def test_schemathesis_finds_nothing(address):
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed here; the tests above send hostile bodies")
    # The description cannot say which strings are a query, or that items are ids, so some of what it allows is refused.
    meant = [pytest.importorskip("schemathesis.specs.openapi.checks").positive_data_acceptance]
    for found in schemathesis.openapi.from_url(f"{address}/openapi.json").get_all_operations():
        operation = found.ok()

        @settings(max_examples=12, suppress_health_check=list(HealthCheck), database=None)
        @given(operation.as_strategy())
        def check(case):
            case.call_and_validate(excluded_checks=meant)

        check()
