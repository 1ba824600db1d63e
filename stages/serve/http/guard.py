"""What every request passes before it is read: its id, the key, the size of its body; and the line that is logged of it.

Plain ASGI: a middleware of the framework would read the whole body first.
"""

import asyncio
import hmac
import json
import logging
import re
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stages.serve.http.bodies import problem
from stages.serve.http.server_metrics import ServerMetrics

PATHS = (
    *("/v1/rerank", "/v2/rerank", "/rerank", "/rank", "/health", "/ready", "/version", "/metrics", "/openapi.json", "/admin/model"),
    *("/", "/page/page.css", "/page/page.js", "/page/users", "/page/slate", "/page/titles"),
)
ADMIN = "/admin/"
LINGER_BYTES, LINGER_S = 1 << 26, 10.0  # of a body that is too large: what is read and thrown away, so that its sender sees the refusal
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
        # A probe may ask with HEAD: it is answered as GET, without the body (RFC 9110, section 9.3.2). FastAPI's routes know GET alone.
        is_head = scope["method"] == "HEAD"

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send({**message, "body": b""} if is_head and message["type"] == "http.response.body" else message)

        try:
            await self._pass({**scope, "method": "GET"} if is_head else scope, headers, receive, answer)
        finally:
            seconds = time.monotonic() - begin
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.seconds.labels(path).observe(seconds)
            record = {"id": request_id, "method": scope["method"], "path": path, "status": status, "ms": round(1000 * seconds, 1)}
            access.info(json.dumps({**record, **scope["state"].get("outcome", {})}))

    async def _pass(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            refusal = self._refusal(scope["path"].startswith(ADMIN), headers)
            body = None if refusal else await self._body(headers, receive)
            if refusal and "expect" not in headers:  # who asks first has sent nothing yet
                await _discard(receive)
            if body is None:
                await (refusal or problem(413, f"the body is larger than {self.max_body} bytes"))(scope, receive, send)
                return
            receive = _replayed(body, receive)
        await self.app(scope, receive, send)

    def _refusal(self, admin: bool, headers: Headers) -> JSONResponse | None:
        """None for who may ask."""
        if admin and not self.admin_key:
            return problem(403, "this server was started without a key for that; set GR2_ADMIN_KEY, or send it SIGHUP")
        key = self.admin_key if admin else self.key
        given = headers.get("authorization", "").encode("latin-1")  # as it came: a key need not be ASCII
        if key and not hmac.compare_digest(given, f"Bearer {key}".encode(errors="surrogateescape")):
            return problem(401, "send the key of this server as `Authorization: Bearer KEY`", {"WWW-Authenticate": "Bearer"})
        return None

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        """None where it is too large: of that no more is kept than it takes to see it."""
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > self.max_body:
            if "expect" not in headers:
                await _discard(receive)
            return None
        parts, size = [], 0
        while True:
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message["type"] == "http.request" and message.get("more_body")
            if size > self.max_body:
                if more:
                    await _discard(receive)
                return None
            if not more:
                return b"".join(parts)


async def _discard(receive: Receive) -> None:
    """Reads on, for a while: a server that closes with something unread resets the connection, and the client never sees the answer."""
    size, end = 0, time.monotonic() + LINGER_S
    with suppress(TimeoutError):
        while size < LINGER_BYTES:
            message = await asyncio.wait_for(receive(), end - time.monotonic())
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                return


def _replayed(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()  # that the client has gone
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
