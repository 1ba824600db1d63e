"""Which model answers, and how another one takes its place: it is loaded beside the old one, which ranks what it was asked and goes."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Protocol

from stages.serve.catalogue import IdCatalogue
from stages.serve.engine.keeper import EngineKeeper
from stages.serve.engine.messages import reason_of
from stages.serve.http.batcher import Batcher
from stages.serve.http.server_metrics import ServerMetrics
from stages.serve.requests import RankResult
from stages.shared.core.errors import StageError

log = logging.getLogger("gr2.serve")


class Ranks(Protocol):
    """What the server needs of a Reranker."""

    @property
    def catalogue(self) -> IdCatalogue: ...

    @property
    def name(self) -> str: ...

    @property
    def mode(self) -> str: ...

    def rank(self, requests: Any) -> list[RankResult]: ...


class Opener(Protocol):
    """Opens a model by the name that `gr2 serve --model` takes; StageError where it cannot be served. `close` ends what is being opened."""

    def open(self, name: str) -> Ranks: ...

    def close(self) -> None: ...


class SwapUnderwayError(Exception):
    """One at a time: two new models beside the old one would need three models' memory."""


@dataclass(frozen=True)
class Served:
    """A model with the requests that wait for it. Their items are numbers of its own catalogue, which no other model's need be."""

    ranks: Ranks
    batcher: Batcher

    @property
    def ready(self) -> bool:
        return self.batcher.alive and (not isinstance(self.ranks, EngineKeeper) or self.ranks.ready)

    def drain(self) -> None:
        """Ranks what waits, then ends the engine."""
        self.batcher.stop()
        self.close()

    def close(self) -> None:
        if isinstance(self.ranks, EngineKeeper):
            self.ranks.close()


class Router:
    """opener: None = no other model can be served."""

    def __init__(self, ranks: Ranks, queue: int, batch: int, metrics: ServerMetrics, opener: Opener | None = None):
        self.queue, self.batch, self.metrics, self.opener = queue, batch, metrics, opener
        self.current = self._served(ranks)
        self._swapping = False

    def start(self) -> None:
        self.current.batcher.start()

    def stop(self) -> None:
        """When no request is open any more: nobody waits for what an engine may still be at."""
        if self.opener:
            self.opener.close()
        self.current.close()
        self.current.batcher.stop()

    async def swap(self, name: str) -> Served:
        """Serves the model `name` from now on; the old one's requests are ranked by the old one. Runs in the server's event loop.

        StageError, with the old one serving as before, where the new one cannot be loaded or answers nothing; SwapUnderwayError.
        """
        if self.opener is None:
            raise StageError("this server was started with a model that it cannot change")
        if self._swapping:
            raise SwapUnderwayError
        self._swapping = True
        try:
            try:
                ranks = await asyncio.to_thread(self.opener.open, name)
            except Exception as error:
                reason = reason_of(error)
                self.metrics.swaps.labels("failed").inc()
                log.error("model: %s cannot be served, %s goes on serving: %s", name, self.current.ranks.name, reason)
                raise StageError(reason) from error
            # From here no request is between the old model and its queue: they are asked for and used without giving up the event loop.
            old, self.current = self.current, self._served(ranks)
            self.start()
            self.metrics.swaps.labels("done").inc()
            log.info("model: %s takes the place of %s", ranks.name, old.ranks.name)
            await asyncio.to_thread(old.drain)
        finally:
            self._swapping = False
        return self.current

    async def reload(self) -> None:
        """The same name again, which may mean another version by now."""
        try:
            ranks = self.current.ranks
            await self.swap(ranks.served.asked if isinstance(ranks, EngineKeeper) else ranks.name)
        except SwapUnderwayError:
            log.error("model: another one is being loaded; nothing is changed")
        except StageError:
            pass  # it is in the log

    def _served(self, ranks: Ranks) -> Served:
        return Served(ranks, Batcher(ranks.rank, self.queue, self.batch, self.metrics))
