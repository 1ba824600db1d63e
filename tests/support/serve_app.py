"""The server's application over a ranker that reverses what it is given, so that every order is known; and an application behind a port."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from types import SimpleNamespace

import uvicorn
from fastapi import FastAPI

from stages.serve.catalogue import IdCatalogue
from stages.serve.http.app import ServerSettings, create_app
from stages.serve.requests import RankRequest, RankResult, fallback, falling


def reversing(requests: Sequence[RankRequest]) -> list[RankResult]:
    """The known items from last to first, the unknown ones behind them; without a history, the incoming order."""
    results = []
    for request in requests:
        if not request.history:
            results.append(fallback(len(request.items), "unknown_user"))
            continue
        known = [place for place, item in enumerate(request.items) if item is not None][::-1]
        order = (*known, *(place for place, item in enumerate(request.items) if item is None))
        results.append(RankResult(order, falling(len(order)), "because", {order[0]: 23}, tokens=9))
    return results


def reversing_app(catalogue: IdCatalogue, settings: ServerSettings | None = None, rank=reversing) -> FastAPI:
    ranks = SimpleNamespace(catalogue=catalogue, name="data/rl/model", mode="reasoning", rank=rank)
    return create_app(ranks, settings or ServerSettings())


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The address of `app` on a free port of this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # a request that comes early waits
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5))
        thread = Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
