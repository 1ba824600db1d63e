"""A page in headless Chromium, over its debugging protocol on a pipe (chromedevtools.github.io/devtools-protocol); no package is needed."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
TIMEOUT_S = 600
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage", "--disable-background-networking"]


class Tab:
    """One page. errors: what its console reported: exceptions, refused resources, violations of its Content-Security-Policy."""

    def __init__(self, to: int, back: int):
        self.to, self.back = os.fdopen(to, "wb", buffering=0), os.fdopen(back, "rb")
        self.number, self.session, self.errors = 0, "", list[str]()
        self._text = bytearray()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        self.to.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(answer["params"]["exceptionDetails"]))
            if answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["level"] == "error":
                self.errors.append(answer["params"]["entry"]["text"])

    def _next(self) -> dict[str, Any]:
        while (end := self._text.find(b"\0")) < 0:
            part = os.read(self.back.fileno(), 1 << 16)
            assert part, "Chromium has ended"
            self._text += part
        message, self._text = self._text[:end], self._text[end + 1 :]
        return json.loads(message)

    def look(self, width: int, dark: bool = False, height: int = 900) -> None:
        """The window and the colours that its user prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """Of a JavaScript expression, as JSON."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not self.value(expression):
            assert time.monotonic() < deadline, f"never: {expression}"
            time.sleep(0.05)

    def shot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))


@contextmanager
def tab(folder: Path) -> Iterator[Tab]:
    """folder: for its profile. Skips the test where there is no Chromium."""
    program = next((path for name in NAMES if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed here")
    to_read, to_write = os.pipe()
    back_read, back_write = os.pipe()
    # It reads commands at 3 and writes answers at 4.
    command = ["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{back_write}', "bash", program, *FLAGS]
    command += ["--remote-debugging-pipe", f"--user-data-dir={folder}", "about:blank"]
    environment = {**os.environ, "HOME": str(folder)}
    process = subprocess.Popen(command, pass_fds=(to_read, back_write), env=environment, stderr=subprocess.DEVNULL)
    os.close(to_read)
    os.close(back_write)
    opened = None
    try:
        opened = Tab(to_write, back_read)
        yield opened
    finally:
        process.kill()
        process.wait()
        if opened:
            opened.to.close()
            opened.back.close()
