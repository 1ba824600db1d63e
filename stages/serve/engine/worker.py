"""`python -m stages.serve.engine.worker FD`: the process of a RankerProcess. It opens the model that the first line names, says whether it
answers, and ranks what the following lines ask, until the other side closes the socket or is gone."""

import json
import logging
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from stages.evaluate.params import EvaluateParams
from stages.serve.engine.messages import ServedModel, line, read_requests, reason_of, result_lines
from stages.serve.requests import ENGINE, RankRequest, RankResult
from stages.serve.reranker import Reranker, open_reranker
from stages.shared.core.errors import StageError
from stages.shared.core.params import load_params
from stages.shared.core.run import set_seed, set_threads, without_library_bars
from stages.shared.generation.engine_worker import end_with

FAILURES = 3  # answers in a row that the engine failed: then it is asked what it answered at the start
PROBE = RankRequest([0], [0, 1], [1.0, 0.0])  # items that every catalogue has
BROKEN = 70  # exit code


def main(descriptor: int) -> None:
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A handler that does nothing, for SIG_IGN would be inherited by the processes of vLLM, which it ends by signal.
        signal.signal(name, lambda *_: None)  # the server is told, too, and first has what it was asked ranked here
    os.set_inheritable(descriptor, False)  # not of the processes that an engine may start
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rb") as lines:
        served = ServedModel(**json.loads(lines.readline()))
        opened = False
        try:
            params = load_params("evaluate", EvaluateParams)
            set_threads(params.threads)
            set_seed(params.seed)
            without_library_bars()
            one_pass = Path(served.one_pass or served.model)
            with open_reranker(Path(served.model), served.mode, params.threads, one_pass, served.margin) as reranker:
                if broken(reranker):
                    raise StageError(f"{served.model} is loaded and answers nothing; the log has why")
                opened = True
                connection.sendall(line({"ready": True}))
                answer_all(reranker, connection, lines, served.budget or math.inf)
        except Exception as error:
            if opened and isinstance(error, ConnectionError):
                return  # nobody wants the answer any more
            if opened:
                raise
            connection.sendall(line({"error": reason_of(error)}))


def answer_all(reranker: Reranker, connection: socket.socket, lines: Iterable[bytes], budget: float = math.inf) -> None:
    """budget: seconds after which nobody waits for the answer to a line."""
    failures = 0
    for message in lines:
        results = reranker.rank(read_requests(json.loads(message)), budget)
        connection.sendall(result_lines(results))
        failures = failures + 1 if all_failed(results) else 0
        if failures >= FAILURES:
            if broken(reranker):  # as vLLM's is whose own process has died: another one may do better
                sys.exit(BROKEN)
            failures = 0


def all_failed(results: list[RankResult]) -> bool:
    return all(result.fallback == ENGINE for result in results)


def broken(reranker: Reranker) -> bool:
    return all_failed(reranker.rank([PROBE]))


if __name__ == "__main__":
    main(int(sys.argv[1]))
