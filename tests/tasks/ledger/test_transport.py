"""Events to a lineage server: a real one on loopback gets what the record has; one that is down or hangs costs a run next to nothing."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tasks.ledger.lines import read_events
from tasks.ledger.verify import check
from tests.support import dvc_toy, lineage_toy

RUN = """
import json, time
from pathlib import Path
from tasks.ledger.run_context import RunContext, git_revision
from tasks.ledger.events import StageRun, close_run
from tasks.project.graph import read_graph
root = Path.cwd()
context = RunContext(git_revision(root), "0190a3f6-1111-7222-8333-444455556666")
began = time.monotonic()
for name in "abcd":
    record = StageRun(root, read_graph(root)[name], context)
    record.start()
    record.complete({"host": "gpu-7", "pool": "gpu", "hardware": {"cpu": "x"}, "flow_run": "1"} if name == "d" else None)
close_run(root, context, "Completed", list("abcd"))
print(time.monotonic() - began)
"""


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lineage_toy.copy(tmp_path_factory, "http")


@pytest.fixture
def server() -> Iterator[tuple[str, list[Any]]]:
    """(address, what it was sent: (path, authorization, event))"""
    received: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, self.headers.get("Authorization"), json.loads(body)))
            self.send_response(201)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_address[1]}", received
    listening.shutdown()


def run(project: Path, **env: Any) -> tuple[float, str]:
    """(seconds between the first event and the end of the run, what was said)."""
    import sys

    result = dvc_toy.call(project, sys.executable, "-c", RUN, PYTHONPATH=str(dvc_toy.ROOT), HOME=str(project.parent), **env)
    return float(result.stdout), result.stderr


def test_a_server_gets_every_event_in_order(project: Path, server: tuple[str, list[Any]]) -> None:
    address, received = server
    before = len(read_events(project))
    _, said = run(project, OPENLINEAGE_URL=address, OPENLINEAGE_API_KEY="sesame-open")
    recorded = read_events(project)[before:]
    assert said == "" and len(recorded) == len(received) == 9
    for event, (path, authorization, sent) in zip(recorded, received, strict=True):
        assert path == "/api/v1/lineage" and authorization == "Bearer sesame-open"
        same = ("eventType", "eventTime", "job", "inputs", "outputs", "producer")
        assert {key: sent.get(key) for key in same} == {key: event.get(key) for key in same}
        assert sent["run"]["runId"] == event["run"]["runId"]
        assert "sesame" not in json.dumps([event, sent]) and "environmentVariables" not in sent["run"]["facets"]
    assert "sesame" not in (project / ".gr2/lineage/events.jsonl").read_text()


def test_a_configuration_file(project: Path, server: tuple[str, list[Any]]) -> None:
    """As openlineage-python reads it; environment variables are not sent even where it asks for them."""
    address, received = server
    text = f"transport: {{type: http, url: '{address}', endpoint: lineage}}\nfacets: {{environment_variables: [SECRET_PLACE]}}\n"
    (project / "openlineage.yml").write_text(text)
    run(project, SECRET_PLACE="under the mat")
    assert len(received) == 9 and received[0][0] == "/lineage" and "under the mat" not in json.dumps(received)


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [False, True])
def test_a_server_that_is_down_is_said_once(project: Path, hangs: bool) -> None:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        if hangs:
            place.listen(1)  # takes connections, never answers
        before = len(read_events(project))
        _, said = run(project, OPENLINEAGE_URL=f"http://127.0.0.1:{place.getsockname()[1]}")
    assert said.count("do not reach the server") == 1 and len(said.splitlines()) == 1
    assert len(read_events(project)) == before + 9 and check(project).faults == []


def test_a_wrong_configuration_is_said_and_the_run_goes_on(project: Path) -> None:
    (project / "openlineage.yml").write_text("transport: {type: carrier-pigeon}\n")
    _, said = run(project)
    assert said.count("configuration is wrong") == 1 and check(project).faults == []
