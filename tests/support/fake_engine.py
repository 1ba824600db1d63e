"""`python -m tests.support.fake_engine FD`: a worker that ranks without a model, as stages/serve/engine/worker.py talks.

The name of its model says what it does: "reverse" turns every order round, "rotate" puts the last first; "broken" cannot be loaded, "dies"
ends while it loads, "slow" takes a second to load, "hangs" never answers, "parent" has a process of its own. A request whose history is
[13] ends the process.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time

from stages.serve.engine.messages import line, read_requests, result_lines
from stages.serve.requests import REASONING, RankResult, falling


def main(descriptor: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rb") as lines:
        model = json.loads(lines.readline())["model"]
        if model == "broken":
            connection.sendall(line({"error": "broken: no weights there"}))
            return
        if model == "dies":
            os._exit(3)
        if model == "parent":
            subprocess.Popen(["sleep", "600"])
        if model == "slow":
            time.sleep(1)
        connection.sendall(line({"ready": True}))
        for message in lines:
            requests = read_requests(json.loads(message))
            if any(request.history == [13] for request in requests):
                os.kill(os.getpid(), signal.SIGKILL)
            if model == "hangs":
                time.sleep(60)
            time.sleep(0.02)
            connection.sendall(result_lines([RankResult(*ranked(model, len(request.items)), way=REASONING) for request in requests]))


def ranked(model: str, count: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    places = tuple(range(count))
    return (places[-1:] + places[:-1] if model == "rotate" else places[::-1]), falling(count)


if __name__ == "__main__":
    main(int(sys.argv[1]))
