"""gr2 server: Prefect on PostgreSQL where one is installed, and what is said where it is not."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient

from flows.server import database, postgres
from flows.server.database import database_of, warn_of_sqlite
from tests.support import dvc_toy
from tests.support.ports import free_port
from tests.support.prefect_server import end_group, wait_for, without_prefect

needs_postgres = pytest.mark.skipif(not postgres.programs(), reason="no PostgreSQL on this machine (Debian: apt-get install postgresql)")


@contextmanager
def served(root: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`gr2 server` on a free port; yields it when it answers, and the address of its API."""
    port = free_port()
    env = {
        **without_prefect(),
        "PYTHONPATH": str(dvc_toy.ROOT),
        "PREFECT_HOME": str(root / "prefect"),
        "PREFECT_SERVER_UI_ENABLED": "false",
    }
    command = [sys.executable, "-m", "flows.cli", "server", "--port", str(port), *words]
    with (root / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=root, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}/api"
    try:
        wait_for(lambda: process.poll() is not None or _answers(url))
        assert process.poll() is None, (root / "server.log").read_text()
        yield process, url
    finally:
        end_group(process)


def _answers(url: str) -> bool:
    with SyncPrefectClient(url) as client:
        return client.api_healthcheck() is None


@pytest.mark.slow
@needs_postgres
def test_on_postgres_and_nothing_is_left_after_a_kill_9(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {a: {cmd: a}}")
    folder = Path(tempfile.mkdtemp(prefix="gr2-test-"))  # root's programs run as another user, who may not enter pytest's folder
    folder.chmod(0o755)
    try:
        with served(tmp_path, "--database", str(folder / "database")) as (process, url):
            with SyncPrefectClient(url) as client:
                assert database_of(client) == database.POSTGRES
                warn_of_sqlite(client)
                assert client.read_work_pools() == []
            assert capsys.readouterr().out == ""
            said = (tmp_path / "server.log").read_text()
            assert "gr2 server: PostgreSQL, on the data in" in said and f"export PREFECT_API_URL={url}" in said
            pid = int((folder / "database/data/postmaster.pid").read_text().split()[0])
            started = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            wait_for(lambda: not any(_runs(child) for child in started) and not psutil.pid_exists(pid))
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
def test_on_sqlite_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {a: {cmd: a}}")
    with served(tmp_path, "--sqlite") as (process, url):
        with SyncPrefectClient(url) as client:
            assert database_of(client) == database.SQLITE
            warn_of_sqlite(client)
        line = capsys.readouterr().out
        assert line.startswith("gr2: Prefect's server keeps its data in SQLite") and line.count("\n") == 1
        assert "gr2 server: Prefect's server keeps its data in SQLite" in (tmp_path / "server.log").read_text()
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(600) == 0


@pytest.mark.parametrize(("installed", "remedy"), [(True, "start the server with: gr2 server"), (False, "apt-get install postgresql")])
def test_the_note_says_how_to_have_postgres(monkeypatch: pytest.MonkeyPatch, installed: bool, remedy: str) -> None:
    monkeypatch.setattr(database, "programs", lambda: Path("/usr/lib/postgresql/15/bin") if installed else None)
    assert remedy in database.sqlite_note() and "\n" not in database.sqlite_note()


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
