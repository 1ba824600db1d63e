"""A server with the form of OpenAI's, whose answers a test writes down: by request, or a list of which the last one is repeated."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Canned:
    """drop: the connection is cut without a word. seconds: before the answer."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    seconds: float = 0.0


@dataclass
class Stub:
    base_url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    most_open: int = 0


def completion(ids: Sequence[int], finish: str = "stop", text: str = "") -> dict[str, Any]:
    choice = {"text": text, "token_ids": list(ids), "logprobs": {"token_logprobs": [-0.5] * len(ids)}, "finish_reason": finish}
    return {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": len(ids)}}


def reply(content: str | None, finish: str = "stop", **message: str) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return {"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 4}}


@contextmanager
def openai_stub(answers: Sequence[Canned] | Callable[[dict[str, Any]], Canned]) -> Iterator[Stub]:
    lock, stub, open_now = threading.Lock(), Stub(""), [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                canned = answers(body) if callable(answers) else answers[min(len(stub.requests), len(answers) - 1)]
                stub.requests.append(body)
                stub.paths.append(self.path)
                stub.keys.append(self.headers.get("Authorization", ""))
                open_now[0] += 1
                stub.most_open = max(stub.most_open, open_now[0])
            time.sleep(canned.seconds)
            with lock:
                open_now[0] -= 1
            if canned.drop:
                self.close_connection = True
                return
            content = canned.body if isinstance(canned.body, bytes) else json.dumps(canned.body).encode()
            self.send_response(canned.status)
            for name, value in {**canned.headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:  # the client had enough
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
