"""Schedules on a real Prefect server: made, planned, listed, paused, removed; and the notifications of docs/schedules.md."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support import dvc_toy, postgres
from tests.support.prefect_server import ask, wait_for, without_prefect

DOCS = dvc_toy.ROOT / "docs" / "schedules.md"
BLOCK = """
from prefect.blocks.notifications import CustomWebhookNotificationBlock
print(CustomWebhookNotificationBlock(name="gr2", url={url!r}, json_data={{"text": "{{{{subject}}}}: {{{{body}}}}"}}).save("gr2"))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = dvc_toy.make(tmp_path_factory.mktemp("schedules") / "My toy")
    (root / "infra/profiles").mkdir(parents=True)
    (root / "infra/profiles/default.yaml").write_text(dvc_toy.PARAMS)
    return root


def schedule(root: Path, server: str, *words: str) -> str:
    return dvc_toy.gr2(root, "schedule", *words, PREFECT_API_URL=server).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--cron", "0 3 * * *"],
            "gr2: schedules need a Prefect server that stays: start one with",
        ),
        (["add"], "gr2 schedule add --cron '0 3 * * *'"),
        (["pause"], "which one? gr2 schedule pause NAME"),
        (["list", "--on-new-data"], "belong to add, not to list"),
        (["--cron", "0 3 * * *", "--profile", "defalt"], "did you mean 'default'"),
    ],
)
def test_wrong_requests(project: Path, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    result = dvc_toy.gr2(project, "schedule", *words, ok=False)
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr


def test_no_server_answers(project: Path) -> None:
    for command in ("schedule", "worker"):
        result = dvc_toy.gr2(project, command, ok=False, PREFECT_API_URL="http://127.0.0.1:9/api")
        assert result.returncode == 2 and "no Prefect server answers at PREFECT_API_URL=http://127.0.0.1:9/api" in result.stderr


@pytest.mark.slow
def test_life_of_a_schedule(project: Path, server: str) -> None:
    for words, message in (
        (["--cron", "61 3 * * *"], "as in: '0 3 * * *'"),
        (["--cron", "0 3 * * *", "--timezone", "Europe/Wien"], "as in: Europe/Vienna"),
        (["remove", "nightly"], "no schedule 'nightly'"),
    ):
        result = dvc_toy.gr2(project, "schedule", *words, ok=False, PREFECT_API_URL=server)
        assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr
    said = schedule(project, server, "add", "--cron", "30 4 * * *", "--timezone", "Asia/Kolkata", "--name", "nightly", "--on-new-data")
    assert "first run: " in said and "T23:00 UTC" in said  # the server's scheduler works, and knows the zone: 5:30 ahead of UTC
    (row,) = json.loads(schedule(project, server, "list", "--json"))["schedules"]
    assert (row["name"], row["cron"], row["on_new_data"], row["paused"], row["last"]) == ("nightly", "30 4 * * *", True, False, None)
    assert row["next"].endswith("T23:00:00+00:00")
    schedule(project, server, "--cron", "0 5 * * *", "--name", "nightly")  # the same name: replaced, with what was planned for it
    schedule(project, server, "pause", "nightly")
    (row,) = json.loads(schedule(project, server, "list", "--json"))["schedules"]
    assert (row["cron"], row["on_new_data"], row["paused"], row["next"]) == ("0 5 * * *", False, True, None)
    other = dvc_toy.make(project.parent / "other" / "My toy")  # a checkout of the same name on the same server
    assert "no schedules" in schedule(other, server, "list")
    assert "no worker is running" in schedule(project, server, "list")
    schedule(project, server, "resume", "nightly")
    schedule(project, server, "remove", "nightly")
    assert "no schedules" in schedule(project, server, "list")
    assert "no scheduled run has been here yet" in schedule(project, server, "history")


@contextmanager
def chat() -> Iterator[tuple[str, list[str]]]:
    """A webhook; its address and the texts that came."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    served = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{served.server_port}/", heard
    finally:
        served.shutdown()
        thread.join()
        served.server_close()


@pytest.mark.slow
@pytest.mark.skipif(not postgres.installed(), reason="no PostgreSQL; with SQLite Prefect's server may hang when an automation is created")
def test_the_notifications_of_the_docs(server: str, tmp_path: Path) -> None:
    text = DOCS.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    env = {**without_prefect(), "PREFECT_API_URL": server, "PREFECT_HOME": str(tmp_path / "home")}
    names = [own["name"] for own in YAML(typ="safe").load(text)["automations"]]
    with chat() as (address, heard):
        python = ("python", "-c", BLOCK.format(url=address))
        block = dvc_toy.call(tmp_path, *python, **env).stdout.split()[-1]
        (tmp_path / "automations.yaml").write_text(text.replace("00000000-0000-0000-0000-000000000000", block))
        dvc_toy.call(tmp_path, "python", "-m", "prefect", "automation", "create", "--from-file", "automations.yaml", **env)
        assert {own["name"] for own in ask(server, "automations/filter", {})} >= set(names)
        flow = ask(server, "flows/", {"name": "scheduled"})["id"]

        def ends(name: str, kind: str, message: str) -> None:
            run: Any = ask(server, "flow_runs/", {"flow_id": flow, "state": {"type": "RUNNING"}})
            ask(server, f"flow_runs/{run['id']}/set_state", {"state": {"type": kind, "name": name, "message": message}, "force": True})

        def told(words: str) -> bool:
            ends(*{"M": ("Missed", "CANCELLED", "one night"), "C": ("Completed", "COMPLETED", "better: rl")}[words[0]])
            return wait_for_text(heard, words[1:])

        wait_for(lambda: told("Mgr2: Missed: one night"))  # the server reads its automations again every few seconds
        wait_for(lambda: told("Cgr2: a new model: better: rl"))
        ends("NothingNew", "COMPLETED", "all is current")
        assert not any("NothingNew" in own for own in heard)


def wait_for_text(heard: list[str], text: str) -> bool:
    try:
        return bool(wait_for(lambda: text in heard, 5))
    except AssertionError:
        return False
