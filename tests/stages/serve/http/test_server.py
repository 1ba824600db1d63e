"""The server as a process: a real socket, a real model, and what a signal does."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from stages.serve.http.server import _key, main
from tests.support.project_clone import ROOT

TIMEOUT_S = 600


@contextmanager
def serving(folder) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The address of a server on a free port, and its process."""
    command = [sys.executable, "-m", "stages.serve.http.server", "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        first = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", first)
        assert address, first + process.stderr.read()
        yield address[0], process
    finally:
        process.kill()
        process.communicate()


def test_a_request_is_answered_by_a_server_on_loopback_and_a_signal_loses_none(finished_run):
    body = {"model": "any", "query": "user:u3", "documents": ["20", "nobody's", "21", "22"], "top_n": 3}
    with serving(finished_run) as (address, process):
        assert httpx.get(f"{address}/ready", timeout=TIMEOUT_S).status_code == 200
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: httpx.post(f"{address}/v2/rerank", json=body, timeout=TIMEOUT_S), range(8)))
            assert [answer.status_code for answer in answers] == [200] * 8
            orders = {json.dumps([one["index"] for one in answer.json()["results"]]) for answer in answers}
            assert len(orders) == 1, "the same request, alone or in a batch"
            assert sorted(json.loads(orders.pop())) == [0, 2, 3] and answers[0].json()["meta"].get("fallback") is None
            counted = httpx.get(f"{address}/metrics", timeout=TIMEOUT_S).text
            assert "gr2_reranked_total 8.0" in counted
            last = pool.submit(httpx.post, f"{address}/rank", json={"user_id": "u3", "items": [20, 21]}, timeout=TIMEOUT_S)
            while 'path="/rank"' not in counted and not last.done() and "gr2_waiting_requests 0.0" in counted:
                counted = httpx.get(f"{address}/metrics", timeout=TIMEOUT_S).text
            process.send_signal(signal.SIGTERM)
            assert last.result().status_code == 200
        assert process.wait(TIMEOUT_S) in (0, -signal.SIGTERM)
        log = [json.loads(line) for line in process.stderr.read().splitlines() if line.startswith("{")]
        assert len(log) >= 9 and "u3" not in json.dumps(log)


def test_a_port_that_is_taken_and_a_model_that_is_not_there_are_named(finished_run, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")  # the server sets it
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SystemExit, match=r"gr2 serve: 127.0.0.1:\d+ cannot be listened at .* another --port"):
            main(["--port", str(taken.getsockname()[1])])
    with pytest.raises(SystemExit, match="gr2 serve: data/none: no such folder"):
        main(["--port", "0", "--model", "data/none"])


def test_keys_and_a_budget_that_make_no_sense_are_said(monkeypatch):
    monkeypatch.setenv("GR2_API_KEY", "from a file\n")
    assert _key("GR2_API_KEY") == "from a file", "no header can hold a line break"
    monkeypatch.setenv("GR2_API_KEY", " ")
    with pytest.raises(SystemExit, match="GR2_API_KEY is blank"):
        main(["--port", "0"])
    for budget in ("0", "-1", "nan", "inf"):
        with pytest.raises(SystemExit, match=r"--budget .*: seconds are expected"):
            main(["--port", "0", f"--budget={budget}"])


def test_the_front_is_light():
    """It must answer at once whatever the engine does, and a model's libraries would double its memory."""
    check = "import sys, stages.serve.http.server as _; sys.exit(' '.join({'torch', 'transformers', 'vllm'} & set(sys.modules)) or 0)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", check], env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
