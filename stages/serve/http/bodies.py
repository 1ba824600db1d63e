"""The bodies of requests and responses. `/rerank` has the fields of Cohere, Jina and vLLM; unknown ones are ignored, as theirs are."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError
from starlette.responses import JSONResponse

from stages.serve.parse import BadRequest, name_of


def _of(expected: str, *kinds: type) -> BeforeValidator:
    """One error instead of one for each kind that the value might have been. true and false are of none of them: to Python, and so to
    pydantic, true is 1, which would be the item or the user of that id."""

    def checked(value: object) -> object:
        whole = isinstance(value, float) and value.is_integer()  # to JSON 2.0 is a whole number
        if isinstance(value, bool) or not (isinstance(value, kinds) or (whole and int in kinds)):
            raise PydanticCustomError("kind", "{expected} is expected", {"expected": expected})
        return value

    return BeforeValidator(checked)


Named = Annotated[str | int | dict[str, Any], _of("a string, a whole number, or an object with `id` or `text`", str, int, dict)]
Id = Annotated[str | int, _of("a string or a whole number", str, int)]
Query = Annotated[str | list[Named] | dict[str, Any], _of("a string, a list or an object", str, list, dict)]
Score = Annotated[float, _of("a number", int, float)]
Count = Annotated[int, _of("a whole number", int), Field(ge=1)]


class RerankBody(BaseModel):
    """query: who is asking, or what was taken before (stages/serve/parse.py). documents: ids, titles, or objects with `id` or `text`."""

    query: Query
    documents: list[Named] = Field(min_length=1)
    model: str | None = Field(None, description="ignored: one model is served, and the response names it")
    top_n: Count | None = Field(None, description="results at most; more than there are documents means all")
    return_documents: bool | None = False


class RankBody(BaseModel):
    """One of user_id and history. scores: the retriever's, one an item."""

    items: list[Named] = Field(min_length=1)
    user_id: Id | None = None
    history: list[Named] | None = None
    scores: list[Score] | None = None
    top_n: Count | None = None
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


def unread(error: RequestValidationError) -> str:
    """What is wrong with a body, in words for whoever sent it: the field that is the furthest in, as the body itself names it."""
    problems = error.errors()
    if problems[0]["type"] == "json_invalid":
        return f"the body is no JSON: {problems[0]['ctx']['error']} (character {problems[0]['loc'][-1]})"
    if problems[0]["loc"] == ("body",):
        return "the body is no JSON object; send one, with the header `content-type: application/json`"
    furthest = max(problems, key=lambda one: len(one["loc"]))
    value, path = error.body, []
    for part in furthest["loc"][1:]:  # among its names are those of types that the value might have been
        if (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int)):
            value = value[part]
            path.append(str(part))
        elif furthest["type"] == "missing":
            path.append(str(part))
    return f"{'.'.join(path)}: {furthest['msg']}"


def problem(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(ErrorBody(message=message, detail=message).model_dump(), status, headers)


def shown(count: int, top_n: int | None) -> int:
    return count if top_n is None else min(count, top_n)


def check_count(items: list[Named], most: int) -> None:
    if len(items) > most:
        raise BadRequest(f"{len(items)} items; this server ranks {most} at once at most")
