"""An engine's process is killed, hangs, or never comes up: every request still gets a whole order, and is told where none was made."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import psutil
import pytest

from stages.serve.engine import keeper as keeper_module
from stages.serve.engine.keeper import EngineKeeper
from stages.serve.engine.messages import ServedModel, read_requests, read_results, request_lines, result_lines
from stages.serve.http.batcher import Batcher
from stages.serve.http.server_metrics import ServerMetrics
from stages.serve.requests import RankRequest, RankResult
from stages.shared.core.errors import StageError
from tests.support.project_clone import ROOT

FAKE = "tests.support.fake_engine"
WAIT_S = 600
REQUEST = RankRequest([1], [5, None, 7, 5])
DEADLY = RankRequest([13], [5, 6])


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., EngineKeeper]]:
    """kept(model, patience) -> a keeper of the fake engine, not started."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(keeper_module, "FIRST_WAIT_S", 0.05)
    made: list[EngineKeeper] = []

    def make(model: str = "reverse", patience: float = WAIT_S) -> EngineKeeper:
        restarts: list[int] = []
        made.append(EngineKeeper(ServedModel(model, model), SimpleNamespace(), patience, lambda: restarts.append(1), FAKE))
        made[-1].restarts = restarts
        return made[-1]

    yield make
    for one in made:
        one.close()


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_requests_and_results_come_through_as_they_are() -> None:
    requests = [REQUEST, RankRequest([], [None], [0.5], known_user=False)]
    results = [
        RankResult((1, 0), (0.7, 0.3), "because: é", {1: 23, 0: 4}, tokens=9, way="reasoning"),
        RankResult((0,), (1.0,), fault="outside"),
    ]
    assert read_requests(json.loads(request_lines(requests))) == requests
    assert read_results(json.loads(result_lines(results))) == results
    assert request_lines(requests).count(b"\n") == 1


def test_kill_9_under_load_costs_no_request_a_wrong_answer(kept: Callable[..., EngineKeeper]) -> None:
    keeper = kept()
    keeper.start()
    batcher = Batcher(keeper.rank, 1000, 4, ServerMetrics())
    batcher.start()
    first = keeper.pid
    with ThreadPoolExecutor(8) as pool:

        def ask(_: int) -> RankResult:
            time.sleep(0.01)
            return batcher.submit(REQUEST).result(WAIT_S)

        asked = [pool.submit(ask, number) for number in range(200)]
        wait_until(lambda: asked[20].done())
        os.kill(first, signal.SIGKILL)
        results = [one.result() for one in asked]
    made = [result for result in results if not result.fallback]
    lost = [result for result in results if result.fallback]
    assert len(results) == 200 and made and lost
    assert {result.order for result in made} == {(3, 2, 1, 0)}, "what the engine made is the engine's"
    assert {(result.order, result.fallback) for result in lost} == {((0, 1, 2, 3), "engine_gone")}, "whole, as it came, and marked"
    wait_until(lambda: keeper.ready)
    assert keeper.pid != first and batcher.submit(REQUEST).result(WAIT_S).order == (3, 2, 1, 0) and keeper.restarts == [1]
    batcher.stop()


def test_an_engine_that_a_request_ends_is_started_again_each_time_later(
    kept: Callable[..., EngineKeeper], caplog: pytest.LogCaptureFixture
) -> None:
    keeper = kept()
    keeper.start()
    for time_before in ("0.05", "0.1"):
        caplog.clear()
        [result] = keeper.rank([DEADLY])
        assert (result.order, result.fallback) == ((0, 1), "engine_gone")
        wait_until(lambda: keeper.ready)
        assert f"was ended by signal 9 (SIGKILL); it is started again in {time_before} s" in caplog.text
    assert keeper.restarts == [1, 1] and keeper.rank([REQUEST])[0].fallback == ""


def test_an_engine_that_hangs_is_replaced(kept: Callable[..., EngineKeeper]) -> None:
    keeper = kept("hangs", patience=0.2)
    keeper.start()
    first = keeper.pid
    assert keeper.rank([REQUEST])[0].fallback == "engine_gone" and not keeper.ready
    wait_until(lambda: keeper.ready)
    assert keeper.pid != first


@pytest.mark.parametrize(("model", "words"), [("broken", "broken: no weights there"), ("dies", "ended with code 3 before it was loaded")])
def test_a_model_that_cannot_be_loaded_is_said_and_leaves_nothing_running(
    kept: Callable[..., EngineKeeper], model: str, words: str
) -> None:
    keeper = kept(model)
    with pytest.raises(StageError, match=words):
        keeper.start()
    assert keeper.pid is None and not keeper.ready


def test_what_an_engine_has_started_ends_with_it(kept: Callable[..., EngineKeeper]) -> None:
    """As the processes of vLLM, which would hold the GPU."""
    keeper = kept("parent")
    keeper.start()
    [child] = psutil.Process(keeper.pid).children()
    assert keeper.rank([DEADLY])[0].fallback == "engine_gone"

    def ended() -> bool:
        try:
            return child.status() == psutil.STATUS_ZOMBIE  # whose new parent takes its time
        except psutil.NoSuchProcess:
            return True

    wait_until(ended)


def test_closing_ends_the_process_also_while_it_loads(kept: Callable[..., EngineKeeper]) -> None:
    keeper, slow = kept(), kept("slow")
    keeper.start()
    pid = keeper.pid
    keeper.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(slow.start)
        wait_until(lambda: slow._newest is not None)
        slow.close()
        with pytest.raises(StageError):
            loading.result(WAIT_S)
