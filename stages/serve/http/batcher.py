"""Requests that wait are ranked together: one thread asks the model, and takes all that came while it was busy."""

import logging
import math
import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Thread

from stages.serve.http.server_metrics import ServerMetrics
from stages.serve.requests import ENGINE, RankRequest, RankResult, fallback

log = logging.getLogger("gr2.serve")


class QueueFullError(Exception):
    """retry_after: seconds until the queue will have moved."""

    def __init__(self, retry_after: int):
        super().__init__(f"too many requests wait; try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(frozen=True)
class Waiting:
    request: RankRequest
    future: "Future[RankResult]" = field(default_factory=Future)


class Batcher:
    """rank: one result a request. capacity: requests that may wait. batch: requests ranked together at most."""

    def __init__(self, rank: Callable[[Sequence[RankRequest]], list[RankResult]], capacity: int, batch: int, metrics: ServerMetrics):
        self.rank, self.batch, self.metrics = rank, batch, metrics
        self.queue: queue.Queue[Waiting | None] = queue.Queue(capacity)
        self.thread = Thread(target=self._work, name="ranker", daemon=True)
        self.last_seconds = 1.0
        metrics.waiting.set_function(self.queue.qsize)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        """Ranks what waits, then ends."""
        self.queue.put(None)
        self.thread.join()

    @property
    def alive(self) -> bool:
        return self.thread.is_alive()

    def submit(self, request: RankRequest) -> "Future[RankResult]":
        """A request whose future is cancelled before its turn is left out. QueueFullError past the capacity."""
        waiting = Waiting(request)
        if not self.alive:  # nobody will ever take it
            waiting.future.set_result(fallback(len(request.items), ENGINE))
            return waiting.future
        try:
            self.queue.put_nowait(waiting)
        except queue.Full:
            raise QueueFullError(max(1, math.ceil(self.last_seconds))) from None
        return waiting.future

    def _work(self) -> None:
        while (first := self.queue.get()) is not None:
            batch, last = [first], False
            while len(batch) < self.batch and not self.queue.empty():
                if (following := self.queue.get()) is None:
                    last = True
                    break
                batch.append(following)
            self._answer([waiting for waiting in batch if waiting.future.set_running_or_notify_cancel()])
            if last:
                return

    def _answer(self, batch: list[Waiting]) -> None:
        if not batch:
            return
        self.metrics.batches.observe(len(batch))
        begin = time.monotonic()
        try:
            results = self.rank([waiting.request for waiting in batch])
        except BaseException as error:  # this thread must outlive whatever an engine throws, SystemExit too
            log.error("engine: %s: %s", type(error).__name__, error)
            results = [fallback(len(waiting.request.items), ENGINE) for waiting in batch]
        self.last_seconds = time.monotonic() - begin
        for waiting, result in zip(batch, results, strict=True):
            waiting.future.set_result(result)
