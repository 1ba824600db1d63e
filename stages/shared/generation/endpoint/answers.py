"""What a server's response comes to: an answer, or a kind of fault and whether another try can help."""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

# Statuses that every other request would get, too.
FATAL = {
    401: "{url}: the key was refused (401: {says}); set the environment variable {variable}",
    403: "{url}: access was refused (403: {says}); set the environment variable {variable} to a key that may use {model}",
    404: "{url}: not there (404: {says}); look at engine.endpoint.base_url, which ends in /v1, and at engine.endpoint.model ({model})",
}
OVERLOADED = (408, 429)  # and every 5xx


class UnreadableAnswer(Exception):
    """A choice that is none; its argument is the kind of fault."""


@dataclass(frozen=True)
class ServerAnswer:
    """choice: as the server gave it, or {} with a fault. again: whether another try can help."""

    choice: dict[str, Any] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    fault: str = ""
    reason: str = ""
    again: bool = False

    def to_keep(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key not in ("fault", "reason", "again")}

    def with_reason(self, reason: str) -> "ServerAnswer":
        return replace(self, reason=reason)


def read_answer(response: httpx.Response, seconds: float, check: Callable[[Mapping[str, Any]], None]) -> ServerAnswer:
    """fault: busy (408, 429) | server_error (5xx) | refused (any other status but 200) | garbage (no JSON, or not of the expected
    form) | empty (no choice in it)."""
    if response.status_code != 200:
        fault = "busy" if response.status_code in OVERLOADED else "server_error" if response.status_code >= 500 else "refused"
        return ServerAnswer(fault=fault, reason=f"{response.status_code}: {server_says(response)}", again=fault != "refused")
    try:
        content = response.json()
        choices = content["choices"]
        if not choices:
            raise UnreadableAnswer("empty")
        choice, usage = choices[0], content.get("usage") or {}
        check(choice)
        prompt_tokens, completion_tokens = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
    except UnreadableAnswer as error:
        return ServerAnswer(fault=str(error), reason=server_says(response), again=True)
    except (ValueError, KeyError, TypeError, AttributeError):  # half an answer, a proxy's page, another protocol
        return ServerAnswer(fault="garbage", reason=server_says(response), again=True)
    return ServerAnswer(choice, prompt_tokens, completion_tokens, seconds)


def retry_after(response: httpx.Response) -> float:
    """Seconds that the header Retry-After asks to wait, given as a number or as a date; 0 without it, or where it is neither."""
    value = response.headers.get("Retry-After", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def server_says(response: httpx.Response) -> str:
    """Its message, in one short line."""
    text = response.text
    try:
        error = json.loads(text)
        error = error.get("error", error.get("message", error)) if isinstance(error, dict) else error
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except ValueError:
        pass
    return " ".join(text.split())[:200] or "nothing"
