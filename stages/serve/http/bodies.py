"""The bodies of requests and responses. `/rerank` has the fields of Cohere, Jina and vLLM; unknown ones are ignored, as theirs are."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from stages.serve.parse import BadRequest, name_of

Named = str | int | dict[str, Any]


class RerankBody(BaseModel):
    """query: who is asking, or what was taken before (stages/serve/parse.py). documents: ids, titles, or objects with `id` or `text`."""

    query: str | list[Named] | dict[str, Any]
    documents: list[Named] = Field(min_length=1)
    model: str | None = Field(None, description="ignored: one model is served, and the response names it")
    top_n: int | None = Field(None, ge=1, description="results at most; more than there are documents means all")
    return_documents: bool | None = False


class RankBody(BaseModel):
    """One of user_id and history. scores: the retriever's, one an item."""

    items: list[Named] = Field(min_length=1)
    user_id: str | int | None = None
    history: list[Named] | None = None
    scores: list[float] | None = None
    top_n: int | None = Field(None, ge=1)
    explain: bool = False


class RerankedDocument(BaseModel):
    index: int = Field(description="place in the request's own array")
    relevance_score: float
    document: dict[str, str] | None = None


class RerankResponse(BaseModel):
    id: str
    model: str
    results: list[RerankedDocument]
    meta: dict[str, Any]
    usage: dict[str, int]


class RankedItem(BaseModel):
    """relevance: the level that the reasoning gave the item, 0 to 23; null where it gave none."""

    index: int
    id: str
    score: float
    relevance: int | None = None


class ModelBody(BaseModel):
    """model: a folder, or a version of `gr2 promote`, as `gr2 serve --model` takes it."""

    model: str = Field(min_length=1, max_length=1000)


class RankResponse(BaseModel):
    id: str
    model: str
    items: list[RankedItem]
    fallback: str | None = Field(None, description="why the incoming order came back; null for a rerank")
    way: str | None = Field(None, description="how the model was asked: reasoning or one-pass; null where it was not")
    reasoning: str | None = None


def document_of(item: Named, place: int) -> dict[str, str]:
    """What `return_documents` gives back of a document. Clients want `text`: an object without one gets the name that it goes by."""
    if not isinstance(item, dict):
        return {"text": name_of(item, place)}
    return {"text": name_of(item, place)} | {key: name_of(item[key], place) for key in ("id", "text") if item.get(key) is not None}


class ErrorBody(BaseModel):
    """An error. Cohere's clients look for its reason in `message`, Jina's in `detail`."""

    message: str
    detail: str


def problem(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(ErrorBody(message=message, detail=message).model_dump(), status, headers)


def shown(count: int, top_n: int | None) -> int:
    return count if top_n is None else min(count, top_n)


def check_count(items: list[Named], most: int) -> None:
    if len(items) > most:
        raise BadRequest(f"{len(items)} items; this server ranks {most} at once at most")
