from concurrent.futures import CancelledError
from threading import Event

import pytest

from stages.serve.http.batcher import Batcher, QueueFullError
from stages.serve.http.server_metrics import ServerMetrics
from stages.serve.requests import RankRequest, RankResult

REQUEST = RankRequest([1], [2, 3])
REVERSED = RankResult((1, 0), (1.0, 0.5))


class Held:
    """Ranks once it may, and remembers the sizes of its batches."""

    def __init__(self):
        self.sizes, self.begun, self.go = [], Event(), Event()

    def rank(self, requests):
        self.begun.set()
        assert self.go.wait(600)
        self.sizes.append(len(requests))
        return [REVERSED] * len(requests)


@pytest.fixture
def held():
    return Held()


def started(rank, capacity=4, batch=3):
    batcher = Batcher(rank, capacity, batch, ServerMetrics())
    batcher.start()
    return batcher


def test_what_waits_is_ranked_together_and_past_the_capacity_refused(held):
    batcher = started(held.rank)
    first = batcher.submit(REQUEST)
    assert held.begun.wait(600)
    waiting = [batcher.submit(REQUEST) for _ in range(4)]
    with pytest.raises(QueueFullError) as refused:
        batcher.submit(REQUEST)
    assert refused.value.retry_after >= 1
    held.go.set()
    assert [future.result(600) for future in [first, *waiting]] == [REVERSED] * 5
    assert held.sizes == [1, 3, 1]
    batcher.stop()


def test_what_nobody_waits_for_any_more_is_not_ranked(held):
    batcher = started(held.rank)
    first = batcher.submit(REQUEST)
    assert held.begun.wait(600)
    gone, stays = batcher.submit(REQUEST), batcher.submit(REQUEST)
    assert gone.cancel()
    held.go.set()
    assert [first.result(600), stays.result(600)] == [REVERSED] * 2 and held.sizes == [1, 1]
    with pytest.raises(CancelledError):
        gone.result(0)
    batcher.stop()


def test_stopping_ranks_what_waits_and_then_nobody_waits_in_vain(held):
    batcher = started(held.rank)
    futures = [batcher.submit(REQUEST) for _ in range(3)]
    held.go.set()
    batcher.stop()
    assert [future.result(0) for future in futures] == [REVERSED] * 3 and not batcher.alive
    assert batcher.submit(REQUEST).result(0).fallback == "engine"


@pytest.mark.parametrize("error", [RuntimeError("gone"), SystemExit(1), MemoryError()])
def test_whatever_an_engine_throws_the_thread_goes_on(error):
    calls = []

    def broken(requests):
        calls.append(requests)
        if len(calls) == 1:
            raise error
        return [REVERSED] * len(requests)

    batcher = started(broken)
    failed = batcher.submit(REQUEST).result(600)
    assert (failed.order, failed.fallback) == ((0, 1), "engine")
    assert batcher.submit(REQUEST).result(600) == REVERSED
    batcher.stop()
