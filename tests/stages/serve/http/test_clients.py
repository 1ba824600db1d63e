"""Rerank clients that people have, unmodified, against the server: always what each was recorded to send; itself where it is installed.

Recorded with cohere 5.21.1 and 7.3.1, litellm 1.83.0, langchain-cohere 0.6.0, langchain-community 0.4.2 and
llama-index-postprocessor-cohere-rerank 0.10.0, each asked for the items 4, nobody's and 5 of user u3, best two.
"""

import json
from typing import Any

import httpx
import pytest

from stages.serve.http.app import ServerSettings
from tests.support.serve_app import listening, reversing_app

DOCUMENTS = ["4", "nobody's", "5"]
BEST = [(2, 1.0), (0, 2 / 3)]  # of the known ones the last first, then the first
KEY = {"Authorization": "Bearer k"}
YAML = ["id: '4'\ntitle: Title 4\n", "id: nobody's\n", "id: '5'\ntitle: 'it''s: 5'\n"]  # LangChain's form of objects
WITH_METADATA = ["id: 4\nyear: 1995\n\nTitle 6", "id: nobody's\n\nx", "id: 5\n\nTitle 5"]  # LlamaIndex's form of nodes


def compact(body: dict[str, Any]) -> bytes:
    """As httpx writes JSON."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


# client -> path, headers of its own, body.
RECORDED = {
    "cohere.Client": (
        "/v1/rerank",
        {"X-Fern-Language": "Python"},
        b'{"model":"rerank-v3.5","query":"user:u3","documents":["4","nobody\'s","5"],"top_n":2,"return_documents":true}',
    ),
    "cohere.Client, objects": (
        "/v1/rerank",
        {},
        b'{"query":"user:u3","documents":[{"text":"4"},{"text":"nobody\'s"},{"text":"5"}],"top_n":2,"rank_fields":["text"]}',
    ),
    "cohere.ClientV2": ("/v2/rerank", {}, b'{"model":"rerank-v3.5","query":"user:u3","documents":["4","nobody\'s","5"],"top_n":2}'),
    "litellm cohere": (
        "/v2/rerank",
        {"accept": "application/json"},
        b'{"model": "rerank-english-v3.0", "query": "user:u3", "top_n": 2, "documents": ["4", "nobody\'s", "5"], "return_documents": true}',
    ),
    "litellm jina_ai": (
        "/v1/rerank",
        {"accept": "application/json"},
        b'{"model": "jina", "query": "user:u3", "top_n": 2, "documents": ["4", "nobody\'s", {"id": "5"}], "return_documents": true}',
    ),
    "litellm hosted_vllm": (
        "/rerank",
        {"accept": "application/json"},
        b'{"model": "reranker", "query": "user:u3", "top_n": 2, "documents": ["4", "nobody\'s", "5"], "return_documents": true}',
    ),
    "langchain_cohere": (
        "/v2/rerank",
        {"X-Client-Name": "langchain:partner"},
        b'{"model":"m","query":"user:u3","documents":["4","nobody\'s","5"],"top_n":2,"max_tokens_per_doc":null}',
    ),
    "langchain_cohere, objects": (
        "/v2/rerank",
        {"X-Client-Name": "langchain:partner"},
        compact({"model": "m", "query": "user:u3", "documents": YAML, "top_n": 2, "max_tokens_per_doc": None}),
    ),
    "langchain_community JinaRerank": (
        "/v1/rerank",
        {"user-agent": "langchain", "Content-type": "application/json"},
        b'{"query": "user:u3", "documents": ["4", "nobody\'s", "5"], "model": "jina-reranker-v1-base-en", "top_n": 2}',
    ),
    "llama_index": (
        "/v2/rerank",
        {},
        compact({"model": "rerank-english-v3.0", "query": "user:u3", "documents": WITH_METADATA, "top_n": 2}),
    ),
}


@pytest.fixture(scope="module")
def address(catalogue):
    with listening(reversing_app(catalogue, ServerSettings(key="k"))) as url:
        yield url


def best(results):
    return [(one["index"], one["relevance_score"]) for one in results]


@pytest.mark.parametrize("client", RECORDED)
def test_what_each_client_sends_is_answered_as_it_reads_answers(address, client):
    path, headers, body = RECORDED[client]
    response = httpx.post(address + path, content=body, headers={"content-type": "application/json", **KEY, **headers})
    answer = response.json()
    assert response.status_code == 200 and response.headers["content-type"] == "application/json"
    assert best(answer["results"]) == BEST
    assert isinstance(answer["id"], str) and answer["meta"]["api_version"]["version"] == ("2" if path == "/v2/rerank" else "1")
    assert answer["meta"]["billed_units"] == {"search_units": 1} and answer["usage"] == {"total_tokens": 9}
    if b'"return_documents": true' in body or b'"return_documents":true' in body:
        assert all(isinstance(one["document"]["text"], str) for one in answer["results"]), "litellm refuses a document without text"


def test_an_error_says_why_where_each_client_looks(address):
    for path in ("/v1/rerank", "/v2/rerank", "/rerank", "/nowhere"):
        answer = httpx.post(address + path, json={"query": "what I like", "documents": ["4"]}, headers=KEY).json()
        assert answer["message"] == answer["detail"] != ""
    refused = httpx.post(f"{address}/rerank", json={})
    assert refused.status_code == 401 and "key" in refused.json()["detail"]
    assert httpx.get(f"{address}/rerank").status_code == 405


def package(name):
    return pytest.importorskip(name, reason=f"{name} is not installed here; what it sends is tested from a recording")


def test_cohere(address):
    cohere = package("cohere")
    old, new = cohere.Client("k", base_url=address), cohere.ClientV2("k", base_url=address)
    answer = old.rerank(query="user:u3", documents=DOCUMENTS, model="rerank-v3.5", top_n=2, return_documents=True)
    assert [(one.index, one.relevance_score, one.document.text) for one in answer.results] == [(2, 1.0, "5"), (0, 2 / 3, "4")]
    assert (answer.meta.api_version.version, answer.meta.billed_units.search_units) == ("1", 1)
    answer = new.rerank(query="user:u3", documents=DOCUMENTS, model="rerank-v3.5", top_n=2)
    assert [(one.index, one.relevance_score) for one in answer.results] == BEST and answer.meta.api_version.version == "2"
    with pytest.raises(cohere.BadRequestError, match="send user:ID, or JSON"):
        new.rerank(query="what I like", documents=DOCUMENTS, model="m")
    with pytest.raises(cohere.UnauthorizedError):
        cohere.ClientV2("other", base_url=address).rerank(query="user:u3", documents=DOCUMENTS, model="m")


def test_litellm(address, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the internet for prices
    litellm = package("litellm")
    for model in ("cohere/rerank-english-v3.0", "jina_ai/jina-reranker-v2", "hosted_vllm/reranker"):
        for documents in (DOCUMENTS, ["4", {"text": "nobody's"}, {"id": "5"}]):
            answer = litellm.rerank(model=model, query="user:u3", documents=documents, top_n=2, api_base=address, api_key="k")
            assert best(answer.results) == BEST and [one["document"]["text"] for one in answer.results] == ["5", "4"]


def test_langchain(address, monkeypatch):
    documents = [package("langchain_core.documents").Document(text, metadata={"from": text}) for text in DOCUMENTS]
    reranker = package("langchain_cohere").CohereRerank(model="m", cohere_api_key="k", base_url=address, top_n=2)
    found = reranker.compress_documents(documents, "user:u3")
    assert [(one.metadata["from"], one.metadata["relevance_score"]) for one in found] == [("5", 1.0), ("4", 2 / 3)]
    objects = [{"id": "4", "title": "Title 4"}, {"id": "nobody's"}, {"id": "5", "title": "it's: 5"}]
    assert best(reranker.rerank(objects, "user:u3")) == BEST
    jina = package("langchain_community.document_compressors.jina_rerank")
    monkeypatch.setattr(jina, "JINA_API_URL", f"{address}/v1/rerank")  # it takes no other address
    asked = jina.JinaRerank(jina_api_key="k", top_n=2)
    assert [one.page_content for one in asked.compress_documents(documents, "user:u3")] == ["5", "4"]
    with pytest.raises(RuntimeError, match="send user:ID, or JSON"):
        asked.compress_documents(documents, "what I like")


def test_llama_index(address):
    reranker = package("llama_index.postprocessor.cohere_rerank").CohereRerank(api_key="k", base_url=address, top_n=2)
    schema = package("llama_index.core.schema")
    plain = [schema.TextNode(text=text) for text in DOCUMENTS]
    named = [schema.TextNode(text="a film", metadata={"id": text, "year": 1995}) for text in DOCUMENTS]
    for nodes in (plain, named):
        found = reranker.postprocess_nodes([schema.NodeWithScore(node=node) for node in nodes], query_str="user:u3")
        assert [(one.node.node_id, one.score) for one in found] == [(nodes[2].node_id, 1.0), (nodes[0].node_id, 2 / 3)]
