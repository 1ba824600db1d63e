"""The Prefect server of a single run: a child process that starts while this process still imports Prefect, and ends with it.

Prefect's own SubprocessASGIServer does the same after an import of the whole server in this process, two seconds of CPU time that
only the child needs, and one after the other. Here both import at the same time.

A server that dies is started again on the same port and database: its clients' calls wait in the queue of the socket meanwhile, and a run
loses seconds. One that keeps dying leaves the port closed, so that calls fail at once.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
from pathlib import Path

from tasks.system.errors import ProjectError
from tasks.system.lifeline import Lifeline

APP = Path(__file__).with_name("ephemeral_app.py")
TIMEOUT = "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"
POLL_S, STOP_S = 0.05, 5.0
RESTARTS = 3


class EphemeralServer:
    """Starts at once; `wait_until_ready` before the first call. Its address is in PREFECT_API_URL of this process."""

    def __init__(self) -> None:
        self._listener = socket.socket()  # bound here, so that no other process can take the port before the child listens
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()  # a first request waits in the queue until the child answers it
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/api"
        self._stopping = threading.Event()
        self._guard = threading.Lock()  # between a restart and the end of the run
        self._start()
        os.environ["PREFECT_API_URL"] = self.url  # Prefect reads it at its import
        _running.append(self)
        atexit.register(self.stop)

    def _start(self) -> None:
        self.process = _start(self._listener)
        self._lifeline = Lifeline(f"kill -9 {self.process.pid}")  # after a kill -9 of this process no `atexit` runs

    def wait_until_ready(self) -> None:
        """ProjectError when the server ends or does not answer in time."""
        deadline = time.monotonic() + float(os.environ[TIMEOUT])
        while time.monotonic() < deadline:
            if (code := self.process.poll()) is not None:
                raise _no_start(f"exit code {code}")
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=deadline - time.monotonic()):
                    threading.Thread(target=self._keep_alive, daemon=True).start()
                    return
            except OSError:  # the child ended before it answered
                time.sleep(POLL_S)
        raise _no_start(f"no answer in {os.environ[TIMEOUT]} s")

    def _keep_alive(self) -> None:
        """Starts the server again when it dies, RESTARTS times."""
        for _ in range(RESTARTS):
            self.process.wait()
            with self._guard:
                if self._stopping.is_set():
                    return
                self._lifeline.cancel()
                print("gr2: Prefect's server of this run died; starting it again", file=sys.stderr, flush=True)
                self._start()
        self.process.wait()
        self._listener.close()

    def stop(self) -> None:
        with self._guard:
            self._stopping.set()
        self.process.terminate()
        try:
            self.process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._lifeline.cancel()


_running: list[EphemeralServer] = []


def is_ephemeral(url: str) -> bool:
    """Whether `url` is that of a server which this process has started: no node or worker can use it."""
    return any(server.url == url for server in _running)


def server_is_configured(root: Path) -> bool:
    """Whether the environment, or a settings file that Prefect reads, names a server.

    Prefect itself is asked only when such a file exists: its import takes a second, in which the ephemeral server already starts.
    """
    if "PREFECT_API_URL" in os.environ:
        return bool(os.environ["PREFECT_API_URL"])
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or Path(os.environ["PREFECT_HOME"]) / "profiles.toml")
    if not (profiles.exists() or (root / "prefect.toml").exists() or (root / ".env").exists() or _in_pyproject(root)):
        return False
    from prefect.settings import PREFECT_API_URL

    return bool(PREFECT_API_URL.value())


def _in_pyproject(root: Path) -> bool:
    file = root / "pyproject.toml"
    return file.exists() and "prefect" in tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {})


def _start(listener: socket.socket) -> "subprocess.Popen[bytes]":
    """Starts the child with SIGINT blocked: Ctrl-C reaches all processes of the terminal, and the server has to outlive the run's end.

    A child inherits the signal mask of the thread that starts it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        descriptor = listener.fileno()
        # -P: this folder has modules with common names, which must not come first in the child's path.
        command = [sys.executable, "-P", str(APP), str(descriptor)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[descriptor])
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _no_start(reason: str) -> ProjectError:
    return ProjectError(
        f"Prefect's ephemeral server did not start ({reason}); on a busy machine give it longer ({TIMEOUT}=600), else remove .gr2/prefect "
        "and try again, or set PREFECT_API_URL"
    )
