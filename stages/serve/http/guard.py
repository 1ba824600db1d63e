"""What every request passes before it is read: its id, the key, the size of its body; and the line that is logged of it.

Plain ASGI: a middleware of the framework would read the whole body first.
"""

import hmac
import json
import logging
import re
import time
import uuid
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stages.serve.http.bodies import problem
from stages.serve.http.server_metrics import ServerMetrics

PATHS = (
    *("/v1/rerank", "/v2/rerank", "/rerank", "/rank", "/health", "/ready", "/version", "/metrics", "/openapi.json", "/admin/model"),
    *("/", "/page/page.css", "/page/page.js", "/page/users", "/page/slate", "/page/titles"),
)
ADMIN = "/admin/"
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
access = logging.getLogger("gr2.serve.access")


@dataclass(frozen=True)
class Guard:
    """key: expected of every POST as `Authorization: Bearer KEY`; empty = none. admin_key: of those below /admin/, which nobody may send
    where it is empty. max_body: bytes."""

    app: ASGIApp
    metrics: ServerMetrics
    key: str
    admin_key: str
    max_body: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, headers = time.monotonic(), Headers(scope=scope)
        sent = headers.get("x-request-id", "")
        request_id = sent if REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        path = scope["path"] if scope["path"] in PATHS else "other"  # a path may be anything, and would be a label, or a name in the log
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._pass(scope, headers, receive, answer)
        finally:
            seconds = time.monotonic() - begin
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.seconds.labels(path).observe(seconds)
            record = {"id": request_id, "method": scope["method"], "path": path, "status": status, "ms": round(1000 * seconds, 1)}
            access.info(json.dumps({**record, **scope["state"].get("outcome", {})}))

    async def _pass(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            admin = scope["path"].startswith(ADMIN)
            if admin and not self.admin_key:
                await problem(403, "this server was started without a key for that; set GR2_ADMIN_KEY, or send it SIGHUP")(
                    scope, receive, send
                )
                return
            key = self.admin_key if admin else self.key
            given = headers.get("authorization", "").encode()
            if key and not hmac.compare_digest(given, f"Bearer {key}".encode()):
                refusal = {"WWW-Authenticate": "Bearer"}
                await problem(401, "send the key of this server as `Authorization: Bearer KEY`", refusal)(scope, receive, send)
                return
            body = await self._body(headers, receive)
            if body is None:
                await problem(413, f"the body is larger than {self.max_body} bytes")(scope, receive, send)
                return
            receive = _replayed(body, receive)
        await self.app(scope, receive, send)

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        """None where it is too large, of which no more is read than that takes."""
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > self.max_body:
            return None
        parts, size = [], 0
        while True:
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.max_body:
                return None
            if message["type"] != "http.request" or not message.get("more_body"):
                return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()  # that the client has gone
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
