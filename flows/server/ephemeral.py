"""Prefect's ephemeral server, which here ends with the process that started it, however that one ends."""

import os
import subprocess
from typing import Any

from prefect.server.api.server import SubprocessASGIServer


class OwnServer(SubprocessASGIServer):
    """Prefect ends it when Python exits in good order; after a kill -9 it would stay for ever. Prefect's clients find it."""

    def _run_uvicorn_command(self) -> "subprocess.Popen[Any]":
        server = super()._run_uvicorn_command()
        self._lifelines = [*getattr(self, "_lifelines", []), _lifeline(server.pid)]
        return server


def _lifeline(pid: int) -> int:
    """Our end of a pipe to a process that kills `pid` when that end is closed: by our death, for no other process inherits it."""
    reading, writing = os.pipe()
    subprocess.Popen(
        ["/bin/sh", "-c", f"read -r _; kill -9 {pid}"],
        stdin=reading,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C on the terminal is not for it
    )
    os.close(reading)
    return writing
