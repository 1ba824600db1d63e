"""A PostgreSQL server for one test, from the machine's installation. Its programs refuse to run as root; then they run as `nobody`."""

import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import free_port

FOLDERS = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
PROGRAMS = os.pathsep.join([*FOLDERS, os.environ.get("PATH", os.defpath)])


def installed() -> bool:
    return shutil.which("initdb", path=PROGRAMS) is not None


@contextmanager
def if_installed() -> Iterator[dict[str, str]]:
    """The settings with which a Prefect server keeps its data in Postgres; empty if Postgres is not installed: it takes SQLite then.

    For every test with workers or automations: with SQLite the server stops answering now and then under them (docs/schedules.md).
    """
    if not installed():
        yield {}
        return
    with postgres() as address:
        yield {"PREFECT_SERVER_DATABASE_CONNECTION_URL": address}


@contextmanager
def postgres() -> Iterator[str]:
    """Yields its address as Prefect wants it."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory(prefix="gr2-postgres-") as folder:
        port = free_port()
        if root:
            shutil.chown(folder, "nobody")
        user = "nobody" if root else getpass.getuser()

        def call(program: str, *words: str) -> None:
            command = [str(shutil.which(program, path=PROGRAMS)), "-D", f"{folder}/data", *words]
            done = subprocess.run(command, cwd=folder, user="nobody" if root else None, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr

        call("initdb", "--auth=trust", "--no-sync", f"--username={user}")
        log = f"{folder}/log"
        call("pg_ctl", "-w", "-l", log, "-o", f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -F", "start")
        try:
            yield f"postgresql+asyncpg://{user}@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-m", "immediate", "stop")
