"""A file server on 127.0.0.1 with byte ranges, that can break off, change the file, or refuse."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Served:
    """What the server does next; `requests` notes path, Range and how many bytes of the body were sent."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.etag = '"one"'
        self.modified = ""
        self.ranges = True
        self.wrong_range = False
        self.cuts: list[int] = []  # bytes after which each of the next answers breaks off
        self.stall = False  # instead of breaking off, say nothing more
        self.statuses: list[int] = []  # errors for the next answers
        self.requests: list[tuple[str, str | None, int]] = []


@contextmanager
def serve(served: Served) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body, asked = served.files.get(self.path), self.headers["Range"]
            status = served.statuses.pop(0) if served.statuses else 404 if body is None else 200
            if status != 200 or body is None:
                served.requests.append((self.path, asked, 0))
                self.send_error(status)
                return
            start = 0
            if asked and served.ranges and self.headers["If-Range"] in (served.etag, served.modified):
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(body):
                    served.requests.append((self.path, asked, 0))
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start - served.wrong_range}-{len(body) - 1}/{len(body)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(body) - start))
            if served.etag:
                self.send_header("ETag", served.etag)
            if served.modified:
                self.send_header("Last-Modified", served.modified)
            self.end_headers()
            part = body[start : start + served.cuts.pop(0)] if served.cuts else body[start:]
            served.requests.append((self.path, asked, len(part)))  # before the last byte: a test may look as soon as it has that
            self.wfile.write(part)
            self.wfile.flush()
            while served.stall:
                time.sleep(0.01)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        served.stall = False
        server.shutdown()
        thread.join()
        server.server_close()
