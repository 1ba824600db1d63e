"""A Prefect server on loopback, started as a person starts one, with its scheduler; and requests to its API."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import dvc_toy
from tests.support.ports import free_port

# For tests of schedules: the server looks for what is due, late or cancelled every second instead of every few, for a fifth of a core.
QUICK = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "1",
}


@contextmanager
def serve(folder: Path, quick: bool = False, patience_s: float = 600, **env: str) -> Iterator[str]:
    """`prefect server start` with its home at `folder`; yields the address of its API."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    calm = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_HOME": str(folder)}
    full = {**without_prefect(), **calm, **(QUICK if quick else {}), **env}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=full, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: process.poll() is not None or _answers(f"{url}/health"), patience_s)
        assert process.poll() is None, (folder / "server.log").read_text()
        yield url
    finally:
        end_group(process)


def without_prefect() -> dict[str, str]:
    """The environment of the tests without settings of another Prefect."""
    return {name: value for name, value in dvc_toy.environment().items() if not name.startswith("PREFECT_")}


def end_group(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> None:
    """Ends `process`, the leader of a session, and what it started."""
    for signal_number in (number, signal.SIGKILL):
        try:
            os.killpg(process.pid, signal_number)
            process.wait(20)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def wait_for(condition: Callable[[], Any], seconds: float = 900) -> Any:
    """Calls `condition` until its result is true, and returns that.

    AssertionError after `seconds`, which are for what hangs: a machine may be ten times as slow as another.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s: {condition}")


def ask(url: str, path: str, body: Any = None) -> Any:
    """GET, or POST of `body` as JSON; asks again while the server is busy (its database may be SQLite), as Prefect's client does."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/{path}", data, {"Content-Type": "application/json"})
    for pause in (0.2, 0.5, 1, 2, 5, 0):
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code not in (429, 503) or not pause:
                raise
            time.sleep(pause)
    return None


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
