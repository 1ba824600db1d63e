"""Another model takes the place of the one that is served, over engines that turn orders round or rotate them, so that each is known."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import httpx
import polars as pl
import pytest

from stages.serve.catalogue import IdCatalogue
from stages.serve.engine import keeper as keeper_module
from stages.serve.engine.keeper import Engines
from stages.serve.engine.messages import ServedModel
from stages.serve.http.app import ServerSettings, create_app
from stages.serve.http.server_metrics import ServerMetrics
from tests.support.project_clone import ROOT

ADMIN = {"Authorization": "Bearer root's"}
SETTINGS = ServerSettings(queue=500, batch=4, key="users'", admin_key="root's")
USER = {"Authorization": "Bearer users'"}
ITEMS = {"reverse": ["a", "b", "c"], "rotate": ["c", "a", "b", "d"]}  # by number: two runs' catalogues
BODY = {"history": ["a"], "items": ["a", "b", "c"]}
ORDERS = {"reverse": ["c", "b", "a"], "rotate": ["c", "a", "b"]}
WAIT_S = 600


def catalogue(run) -> IdCatalogue:
    names = ITEMS[run.name]
    return IdCatalogue(pl.DataFrame({"source_id": names, "title": names}), {}, pl.DataFrame())


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Callable[..., None]:
    """serving(scenario) runs `await scenario(client, engines)` on a server that began with the model `reverse`."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(IdCatalogue, "read", staticmethod(catalogue))
    monkeypatch.setattr(keeper_module, "FIRST_WAIT_S", 0.3)

    def find(name: str) -> ServedModel:
        run = tmp_path / (name if name in ITEMS else "rotate")
        run.mkdir(exist_ok=True)
        return ServedModel(name, name, str(run), asked=name)

    async def served(scenario: Callable[..., Awaitable[None]]) -> None:
        metrics = ServerMetrics()
        engines = Engines(find, WAIT_S, metrics.restarts.inc, "tests.support.fake_engine")
        app = create_app(engines.open("reverse"), SETTINGS, engines, metrics)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://x", timeout=WAIT_S) as client:
            await scenario(client)

    return lambda scenario: asyncio.run(served(scenario))


async def until(client: httpx.AsyncClient, path: str, holds: Callable[[httpx.Response], bool]) -> httpx.Response:
    for _ in range(50 * WAIT_S):
        if holds(response := await client.get(path)):
            return response
        await asyncio.sleep(0.02)
    raise AssertionError(response.text)


def test_no_request_is_lost_or_ranked_by_the_wrong_model_while_another_takes_its_place(serving: Callable[..., None]) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        stop, answers = asyncio.Event(), []

        async def ask() -> None:
            while not stop.is_set():
                answers.append(await client.post("/rank", json=BODY, headers=USER))

        asking = [asyncio.create_task(ask()) for _ in range(6)]
        while len(answers) < 10:
            await asyncio.sleep(0.01)
        both = await asyncio.gather(*(client.post("/admin/model", json={"model": "rotate"}, headers=ADMIN) for _ in range(2)))
        assert sorted(one.status_code for one in both) == [200, 409], "one at a time"
        done = next(one for one in both if one.status_code == 200)
        assert done.json() == {"model": "rotate", "mode": "reasoning", "before": "reverse"}
        seen = len(answers)
        while len(answers) < seen + 10:
            await asyncio.sleep(0.01)
        stop.set()
        await asyncio.gather(*asking)
        bodies = [answer.json() for answer in answers]
        assert {answer.status_code for answer in answers} == {200} and {body["fallback"] for body in bodies} == {None}
        assert {body["model"] for body in bodies} == {"reverse", "rotate"} and bodies[-1]["model"] == "rotate"
        assert all([item["id"] for item in body["items"]] == ORDERS[body["model"]] for body in bodies)
        assert (await client.get("/version")).json()["model"] == "rotate"

    serving(scenario)


def test_a_model_that_cannot_be_loaded_leaves_the_old_one_serving(serving: Callable[..., None]) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        refused = await client.post("/admin/model", json={"model": "broken"}, headers=ADMIN)
        assert (refused.status_code, refused.json()["message"]) == (422, "broken: no weights there; reverse goes on serving")
        answer = (await client.post("/rank", json=BODY, headers=USER)).json()
        assert (answer["model"], answer["fallback"], answer["way"]) == ("reverse", None, "reasoning")
        metrics = (await client.get("/metrics")).text
        assert 'gr2_model_swaps_total{outcome="failed"} 1.0' in metrics and 'gr2_ranked_total{way="reasoning"} 1.0' in metrics

    serving(scenario)


def test_only_the_operators_key_changes_the_model(serving: Callable[..., None]) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for headers in ({}, USER, {"Authorization": "Bearer "}):
            assert (await client.post("/admin/model", json={"model": "rotate"}, headers=headers)).status_code == 401
        assert (await client.post("/rank", json=BODY, headers=ADMIN)).status_code == 401
        assert (await client.post("/admin/model", json={"model": ""}, headers=ADMIN)).status_code == 400
        assert (await client.get("/version")).json()["model"] == "reverse"

    serving(scenario)


def test_a_killed_engine_shows_in_readiness_and_metrics_and_sighup_loads_a_new_one(
    serving: Callable[..., None], caplog, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine two requests may take longer than the wait before the engine is back.
    monkeypatch.setattr(keeper_module, "FIRST_WAIT_S", 4.0)

    async def scenario(client: httpx.AsyncClient) -> None:
        lost = (await client.post("/rank", json={"history": ["b"], "items": ["a", "zz"]}, headers=USER)).json()
        assert lost["fallback"] is None
        pid = next(process for process in children() if process)
        os.kill(pid, signal.SIGKILL)
        await until(client, "/ready", lambda response: response.status_code == 503)
        answer = (await client.post("/rank", json=BODY, headers=USER)).json()
        assert (answer["fallback"], [item["id"] for item in answer["items"]]) == ("engine_gone", ["a", "b", "c"])
        await until(client, "/ready", lambda response: response.status_code == 200)
        metrics = (await client.get("/metrics")).text
        assert "gr2_engine_restarts_total 1.0" in metrics and 'gr2_fallbacks_total{reason="engine_gone"} 1.0' in metrics
        os.kill(os.getpid(), signal.SIGHUP)
        await until(client, "/metrics", lambda response: 'gr2_model_swaps_total{outcome="done"} 1.0' in response.text)
        assert (await client.post("/rank", json=BODY, headers=USER)).json()["fallback"] is None
        assert pid not in children()

    caplog.set_level("INFO", "gr2.serve")
    serving(scenario)
    assert "model: reverse takes the place of reverse" in caplog.text


def children() -> set[int]:
    """Engines of this process."""
    import psutil

    found = psutil.Process().children()
    return {one.pid for one in found if "tests.support.fake_engine" in " ".join(one.cmdline())}
