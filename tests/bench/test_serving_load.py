"""What bench/serving_load.py counts while engines are killed, over a server whose engine turns every order round."""

import asyncio
import os
import sys
from pathlib import Path

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

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))

import serving_load
from serving_load import WRONG, Load, judged, kill_row, row

ENGINE = "tests.support.fake_engine"
NAMES = ["a", "b", "c", "d"]
BODIES = [{"history": ["a"], "items": NAMES[: 2 + place % 3]} for place in range(6)]


def answer(order, fallback=None, status=200, headers=None):
    return httpx.Response(status, json={"items": [{"index": place} for place in order], "fallback": fallback}, headers=headers)


@pytest.mark.parametrize(
    ("response", "outcome"),
    [
        (answer([2, 0, 1]), ("reranked", (2, 0, 1))),
        (answer([0, 1, 2], "engine_gone"), ("engine_gone", ())),
        (answer([1, 0, 2], "engine_gone"), (WRONG, ())),
        (answer([0, 1]), (WRONG, ())),
        (answer([0, 1, 1]), (WRONG, ())),
        (answer([], status=500), (WRONG, ())),
        (answer([], status=429), (WRONG, ())),
        (answer([], status=429, headers={"retry-after": "1"}), ("shed", ())),
    ],
)
def test_every_answer_is_judged(response, outcome):
    assert judged(response, 3) == outcome


def test_the_rows_say_what_became_of_every_request():
    load = Load(killed=2, memory=[(99.0, 700.0), (101.0, 300.0), (100.0, 720.0)], seconds=[0.010, 0.020, 0.030])
    load.orders = [(0, (1, 0)), (0, (0, 1)), (4, (2, 1, 0))]
    load.outcomes.update({"reranked": 3, "engine_gone": 2, "time_budget": 1, "shed": 4, WRONG: 1, "ReadTimeout": 1})
    assert kill_row(8, load, {0: (1, 0), 4: (2, 1, 0)}) == "| 8 | 2 times | 12 | 2 | 1 | 3 | 4 | 2 |"
    cells = row(8, load, 1.5).strip("| ").split(" | ")
    assert len(cells) == serving_load.HEAD.count(" | ") + 1
    assert cells == [
        "8",
        "2.00",
        "20",
        "29",
        "30",
        "33.3%",
        f"ReadTimeout 1, {WRONG} 1, engine_gone 2, time_budget 1",
        "99, 101, 100",
        "700, 720, 720",
    ]


def test_a_load_under_which_the_engine_is_killed(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(serving_load, "ENGINE", ENGINE)
    monkeypatch.setattr(keeper_module, "FIRST_WAIT_S", 0.3)
    table = IdCatalogue(pl.DataFrame({"source_id": NAMES, "title": NAMES}), {}, pl.DataFrame())
    monkeypatch.setattr(IdCatalogue, "read", staticmethod(lambda run: table))

    async def loaded():
        metrics = ServerMetrics()
        engines = Engines(lambda name: ServedModel(name, name, str(tmp_path), asked=name), 60, metrics.restarts.inc, ENGINE)
        app = create_app(engines.open("reverse"), ServerSettings(queue=500), engines, metrics)
        transport = httpx.ASGITransport(app=app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://x", timeout=600) as client:
            quiet = await serving_load.run(client, os.getpid(), BODIES, 40, 0.5, 7)
            killed = await serving_load.run(client, os.getpid(), BODIES, 40, 1.0, 7, [0.2])
            return quiet, killed, await serving_load.asked_alone(client, BODIES, set(range(len(BODIES))))

    quiet, killed, alone = asyncio.run(loaded())
    assert alone == {place: tuple(reversed(range(2 + place % 3))) for place in range(6)}
    assert set(quiet.outcomes) == {"reranked"} and quiet.killed == 0 and killed.killed == 1
    assert killed.outcomes["engine_gone"] >= 1 and set(killed.outcomes) <= {"reranked", "engine_gone"} and killed.wrong() == 0
    assert all(alone[place] == order for load in (quiet, killed) for place, order in load.orders)
    assert all(front > 0 and engine > 0 for front, engine in quiet.memory)
