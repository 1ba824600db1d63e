"""The application: standard rerank endpoints and the recommender's own, over one router. Whatever fails, the incoming order comes back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from stages.serve.http.admin import add_admin
from stages.serve.http.batcher import Batcher, QueueFullError
from stages.serve.http.bodies import (
    ErrorBody,
    RankBody,
    RankedItem,
    RankResponse,
    RerankBody,
    RerankedDocument,
    RerankResponse,
    check_count,
    document_of,
    problem,
    shown,
    unread,
)
from stages.serve.http.guard import Guard
from stages.serve.http.hangup import on_hangup
from stages.serve.http.page.routes import page_router
from stages.serve.http.router import Opener, Ranks, Router
from stages.serve.http.server_metrics import ServerMetrics
from stages.serve.parse import BadRequest, name_of, rank_request
from stages.serve.requests import TIME_BUDGET, RankRequest, RankResult, fallback

# Instead of the framework's own 422, which is never sent: what cannot be read is 400.
PROBLEMS: dict[int | str, dict[str, Any]] = {"4XX": {"model": ErrorBody, "description": "what is wrong, or why it is refused"}}
# Of the framework's own refusals.
SAID = {
    400: "the body is no JSON that can be read: too deep, a number too long, or not UTF-8",
    404: "no such path; GET /openapi.json lists what there is",
    405: "not with this method; the header `allow` has the one of this path",
}
VERSION = metadata.version("gr2-pipeline")


@dataclass(frozen=True)
class ServerSettings:
    """budget: seconds of a request. queue: requests that may wait. batch: ranked together at most. key, admin_key: see Guard.
    max_body: bytes."""

    budget: float = 30.0
    queue: int = 64
    batch: int = 32
    key: str = ""
    admin_key: str = ""
    max_body: int = 1 << 20
    max_items: int = 1000


@dataclass(frozen=True)
class Ranking:
    """Submits a request and waits for it, no longer than the budget."""

    metrics: ServerMetrics
    budget: float

    async def result(self, batcher: Batcher, request: RankRequest, http: Request) -> RankResult:
        waiting = asyncio.wrap_future(batcher.submit(request))
        try:
            result = await asyncio.wait_for(waiting, self.budget)
        except TimeoutError:
            result = fallback(len(request.items), TIME_BUDGET)
        self.metrics.count(result)
        http.state.outcome = {"items": len(request.items), "fallback": result.fallback or None, "tokens": result.tokens}
        http.state.outcome |= {"way": result.way} if result.way else {}
        return result


def create_app(reranker: Ranks, settings: ServerSettings, opener: Opener | None = None, metrics: ServerMetrics | None = None) -> FastAPI:
    """opener: see Router; with it, SIGHUP asks it for the same name again."""
    metrics = metrics or ServerMetrics()
    router = Router(reranker, settings.queue, settings.batch, metrics, opener)
    ranking = Ranking(metrics, settings.budget)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        router.start()
        if opener:
            on_hangup(router.reload)
        yield
        await asyncio.to_thread(router.stop)

    # The framework's pages for people load scripts from elsewhere.
    app = FastAPI(title="gr2 serve", version=VERSION, lifespan=lifespan, docs_url=None, redoc_url=None, responses=PROBLEMS)
    app.add_middleware(Guard, metrics=metrics, key=settings.key, admin_key=settings.admin_key, max_body=settings.max_body)  # type: ignore[arg-type]
    _handle_errors(app)
    add_admin(app, router)

    async def rerank(body: RerankBody, http: Request) -> RerankResponse:
        check_count(body.documents, settings.max_items)
        served = router.current  # not given up before the request is in its queue: see Router.swap
        request = rank_request(served.ranks.catalogue, body.query, body.documents)
        documents = [document_of(item, place) for place, item in enumerate(body.documents)] if body.return_documents else None
        result = await ranking.result(served.batcher, request, http)
        count = shown(len(result.order), body.top_n)
        results = [
            RerankedDocument(index=place, relevance_score=score, document=documents[place] if documents else None)
            for place, score in zip(result.order[:count], result.scores[:count], strict=True)
        ]
        meta = {
            "api_version": {"version": "2" if http.url.path.startswith("/v2") else "1"},
            "billed_units": {"search_units": 1},
            "fallback": result.fallback or None,
            "way": result.way or None,
        }
        return RerankResponse(
            id=http.state.request_id, model=served.ranks.name, results=results, meta=meta, usage={"total_tokens": result.tokens}
        )

    for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
        app.post(path, response_model_exclude_none=True, operation_id=f"rerank{path.replace('/', '_')}")(rerank)

    @app.post("/rank")
    async def rank(body: RankBody, http: Request) -> RankResponse:
        check_count(body.items, settings.max_items)
        if (body.user_id is None) == (body.history is None):
            raise BadRequest("send one of user_id and history")
        served = router.current
        query = {"user_id": body.user_id} if body.history is None else {"history": body.history}
        request = rank_request(served.ranks.catalogue, query, body.items, body.scores)
        names = [name_of(item, place) for place, item in enumerate(body.items)]
        result = await ranking.result(served.batcher, request, http)
        count = shown(len(result.order), body.top_n)
        items = [
            RankedItem(index=place, id=names[place], score=score, relevance=result.relevances.get(place) if body.explain else None)
            for place, score in zip(result.order[:count], result.scores[:count], strict=True)
        ]
        reasoning = result.reasoning if body.explain else None
        return RankResponse(
            id=http.state.request_id,
            model=served.ranks.name,
            items=items,
            fallback=result.fallback or None,
            way=result.way or None,
            reasoning=reasoning,
        )

    app.include_router(page_router(lambda: router.current.ranks.catalogue))

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready", responses={503: {"description": "nothing would be ranked any more"}})
    async def ready() -> JSONResponse:
        up = router.current.ready
        return JSONResponse({"ready": up}, 200 if up else 503)

    @app.get("/version")
    async def version() -> dict[str, str]:
        return {"version": VERSION, "model": router.current.ranks.name, "mode": router.current.ranks.mode}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return app


def _handle_errors(app: FastAPI) -> None:
    """Errors in the shape that clients read; never with what was sent, which may be about a person."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return problem(400, unread(error))

    @app.exception_handler(BadRequest)
    async def bad(_: Request, error: BadRequest) -> JSONResponse:
        return problem(400, str(error))

    @app.exception_handler(QueueFullError)
    async def full(_: Request, error: QueueFullError) -> JSONResponse:
        return problem(429, str(error), {"Retry-After": str(error.retry_after)})

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, SAID.get(error.status_code, error.detail), error.headers)
