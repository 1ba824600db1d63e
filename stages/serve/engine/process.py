"""The server's side of an engine's process: a socket with a line of JSON each way, and how the process ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from threading import Lock
from typing import Any

from stages.serve.engine.messages import ServedModel, line, read_results, request_lines
from stages.serve.requests import RankRequest, RankResult
from stages.shared.core.errors import StageError

WORKER = "stages.serve.engine.worker"
CLOSE_S = 10.0  # what a process has to end by itself
STDERR = 2


class EngineGoneError(Exception):
    """The process has ended, or no longer answers, and with it whatever it was asked."""


class RankerProcess:
    """Started with the object; `open` waits for its model. module: what runs in it."""

    def __init__(self, served: ServedModel, module: str = WORKER):
        ours, theirs = socket.socketpair()
        self._served, self._socket, self._lines, self._turn = served, ours, ours.makefile("rb"), Lock()
        environment = {**os.environ, "TQDM_DISABLE": "1"}  # an engine's bars; a log is read later
        with theirs:
            # In a session of its own: Ctrl-C in a terminal would end the engine's own processes, and what the server still has at work.
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno())],
                cwd=served.run,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=STDERR,
                stderr=STDERR,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def open(self) -> None:
        """Returns once the model is loaded and has answered. StageError says why it cannot be served."""
        try:
            answer = self._ask(line(asdict(self._served)), None)
        except EngineGoneError:
            raise StageError(f"{self._served.model}: its engine {self.wait()} before it was loaded; the log has its last words") from None
        if "error" in answer:
            raise StageError(answer["error"])

    def rank(self, requests: Sequence[RankRequest], patience: float) -> list[RankResult]:
        """EngineGoneError where no answer will come, or none comes within `patience` seconds."""
        results = read_results(self._ask(request_lines(requests), patience))
        if [sorted(result.order) for result in results] != [list(range(len(request.items))) for request in requests]:
            raise EngineGoneError("it answered something else than was asked")
        return results

    def wait(self) -> str:
        """Until the process has ended; how it did. What it has started ends, too: it may hold the GPU that the next one needs."""
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)  # until it is reaped its number is nobody else's
            self._kill()
        code = self._process.wait()
        with self._turn:  # whoever waited for an answer has been told by now
            self._lines.close()
            self._socket.close()
        return f"ended with code {code}" if code >= 0 else f"was ended by signal {-code} ({signal.Signals(-code).name})"

    def kill(self) -> None:
        if self._process.returncode is None:  # not reaped yet: the number is still its own
            self._kill()

    def close(self) -> None:
        """Ends by itself after what it has been asked, or is killed."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        end = time.monotonic() + CLOSE_S
        while self._running() and time.monotonic() < end:
            time.sleep(0.02)
        self.kill()
        self._process.wait()

    def _running(self) -> bool:
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None
        except ChildProcessError:
            return False

    def _kill(self) -> None:
        """With all that it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _ask(self, message: bytes, patience: float | None) -> Any:
        with self._turn:
            try:
                self._socket.settimeout(patience)
                self._socket.sendall(message)
                answer = self._lines.readline()
            except OSError as error:  # a time-out is one, too
                raise EngineGoneError(str(error) or type(error).__name__) from None
            if not answer.endswith(b"\n"):
                raise EngineGoneError("the connection was closed")
            return json.loads(answer)
