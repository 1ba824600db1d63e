"""gr2 server: the Prefect server for schedules and nodes, on PostgreSQL where one is installed."""

import argparse
import os
import platform
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType

from flows.server.database import DRIVER, URL_NAMES, sqlite_note
from flows.server.postgres import default_folder, postgres, programs
from tasks.system.lifeline import Lifeline
from tasks.system.processes import signal_group

END_S = 20.0
EVERYWHERE = ("0.0.0.0", "::")  # to listen on, and no address to connect to


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="the address it listens on (default: 127.0.0.1, this machine alone)")
    parser.add_argument("--port", type=int, default=4200, help="default: 4200")
    parser.add_argument("--database", metavar="FOLDER", help=f"where PostgreSQL keeps the data (default: {default_folder()})")
    parser.add_argument("--sqlite", action="store_true", help="use SQLite although PostgreSQL is installed")


def execute(options: argparse.Namespace, cwd: Path) -> int:
    """Serves until Ctrl-C or SIGTERM (exit code 0), or until the server ends by itself."""
    env = {**os.environ, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    signal.signal(signal.SIGTERM, _stopped)
    with ExitStack() as resources:
        bin_folder = None if options.sqlite else programs()
        if any(env.get(name) for name in URL_NAMES):
            print("gr2 server: the database is the one that the environment names", flush=True)
        elif bin_folder:
            folder = cwd / options.database if options.database else default_folder()
            env[URL_NAMES[0]] = resources.enter_context(postgres(bin_folder, folder))
            env[DRIVER] = "postgresql+asyncpg"  # of all that names the database the only thing that a client may see
            print(f"gr2 server: PostgreSQL, on the data in {folder}", flush=True)
        else:
            print(f"gr2 server: {sqlite_note()}", flush=True)
        host = platform.node() if options.host in EVERYWHERE else options.host
        print(f"for gr2 and workers: export PREFECT_API_URL=http://{host}:{options.port}/api", flush=True)
        return _serve(["--host", options.host, "--port", str(options.port)], env)


def _serve(arguments: list[str], env: dict[str, str]) -> int:
    command = [sys.executable, "-m", "prefect", "server", "start", *arguments]
    # A new session: Ctrl-C reaches this process alone, which ends the server first and its database after it.
    child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, start_new_session=True)
    lifeline = Lifeline(f"kill -9 -{child.pid}")
    try:
        return child.wait()
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal_group(child, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(END_S)
        return 0
    finally:
        signal_group(child, signal.SIGKILL)
        child.wait()
        lifeline.cancel()


def _stopped(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
