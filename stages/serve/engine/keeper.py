"""Keeps an engine's process running: one that has ended is started again, and until then requests come back in their own order."""

import logging
import time
from collections.abc import Callable, Sequence
from threading import Event, Lock, Thread

from stages.serve.catalogue import IdCatalogue
from stages.serve.engine.messages import ServedModel
from stages.serve.engine.process import WORKER, EngineGoneError, RankerProcess
from stages.serve.requests import ENGINE_GONE, RankRequest, RankResult, fallback
from stages.shared.core.errors import StageError

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0  # before it is started again; the wait doubles
STEADY_S = 60.0  # one that was up for so long has not failed at its start
log = logging.getLogger("gr2.serve")


class EngineKeeper:
    """catalogue: of the run that the model goes with. patience: seconds without an answer, after which an engine is taken for hung.
    restarted: called each time that one is started again. module: what runs in the process."""

    def __init__(self, served: ServedModel, catalogue: IdCatalogue, patience: float, restarted: Callable[[], None], module: str = WORKER):
        self.served, self.catalogue, self.patience, self.restarted, self.module = served, catalogue, patience, restarted, module
        self.name, self.mode = served.name, served.mode
        self._process: RankerProcess | None = None  # one that answers
        self._newest: RankerProcess | None = None
        self._lock, self._closing = Lock(), Event()
        self._thread = Thread(target=self._keep, name="engine keeper", daemon=True)

    def start(self) -> None:
        """Returns once the model answers. StageError says why it does not; then nothing runs."""
        self._process = self._opened()
        self._thread.start()

    @property
    def ready(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Of the engine's process; None while there is none that answers."""
        process = self._process
        return process.pid if process else None

    def rank(self, requests: Sequence[RankRequest]) -> list[RankResult]:
        process = self._process
        if process is not None:
            try:
                return process.rank(requests, self.patience)
            except EngineGoneError as error:
                log.error("engine: no answer to %d requests: %s", len(requests), error)
                with self._lock:
                    if self._process is process:  # and not the next one already
                        self._process = None
                process.kill()  # it may hang
        return [fallback(len(request.items), ENGINE_GONE) for request in requests]

    def close(self) -> None:
        with self._lock:
            self._closing.set()
            newest, answering, self._process = self._newest, self._process, None
        if newest:
            if newest is not answering:
                newest.kill()  # it loads, and does not listen
            newest.close()
        if self._thread.is_alive():
            self._thread.join()

    def _opened(self) -> RankerProcess:
        with self._lock:
            if self._closing.is_set():
                raise StageError("the server is stopping")
            process = self._newest = RankerProcess(self.served, self.module)
        try:
            process.open()
        except BaseException:
            process.kill()
            process.close()
            raise
        return process

    def _keep(self) -> None:
        wait = FIRST_WAIT_S
        process = self._process
        while process:
            begin = time.monotonic()
            how = process.wait()
            self._process = None
            if time.monotonic() - begin >= STEADY_S:
                wait = FIRST_WAIT_S
            process, wait = self._again(f"its process {how}", wait)
            self._process = process

    def _again(self, reason: str, wait: float) -> tuple[RankerProcess | None, float]:
        """A new process, and how long to wait before the next; None when the keeper is closed."""
        while not self._closing.is_set():
            log.error("engine: %s; it is started again in %g s", reason, wait)
            if self._closing.wait(wait):
                break
            wait = min(2 * wait, LONGEST_WAIT_S)
            self.restarted()
            try:
                return self._opened(), wait
            except StageError as error:
                reason = str(error)
        return None, wait


class Engines:
    """Opens engines, each in a process of its own. find: the model that a name means; StageError where there is none."""

    def __init__(self, find: Callable[[str], ServedModel], patience: float, restarted: Callable[[], None], module: str = WORKER):
        self.find, self.patience, self.restarted, self.module = find, patience, restarted, module
        self._opening: EngineKeeper | None = None
        self._closed = False

    def open(self, name: str) -> EngineKeeper:
        """One that answers. StageError says why it cannot be had."""
        served = self.find(name)
        keeper = self._opening = EngineKeeper(served, IdCatalogue.read(served.folder), self.patience, self.restarted, self.module)
        if self._closed:
            keeper.close()
        try:
            keeper.start()
        finally:
            self._opening = None
        return keeper

    def close(self) -> None:
        """Whoever waits for `open` gets a StageError."""
        self._closed = True
        if self._opening:
            self._opening.close()
