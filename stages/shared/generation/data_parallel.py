"""Engines side by side, a process each, every one with the whole model: a model that fits on one GPU is served best so."""

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from stages.shared.core.errors import StageError
from stages.shared.generation.base import Completion, Constraints, Places, Prompts, Sampling
from stages.shared.generation.params import EngineParams, TeacherEngineParams

VISIBLE = "CUDA_VISIBLE_DEVICES"
MODULE = "stages.shared.generation.engine_worker"


class DataParallelEngine:
    """Prompt i goes to process i % data_parallel, and draws by its place among all: what one engine would draw, roundings apart."""

    def __init__(self, params: EngineParams | TeacherEngineParams, folder: Path, seed: int, threads: int):
        self._workers: list[_Worker] = []
        alone = params.model_copy(update={"data_parallel": 1}).model_dump(exclude={"endpoint"})
        request = {"params": alone, "folder": str(folder), "seed": seed, "threads": threads}
        try:
            # All are started before the first is waited for: each loads for a while.
            self._workers = [_Worker(devices, threads) for devices in shares_of_devices(params)]
            for worker in self._workers:
                worker.send(request)
            for worker in self._workers:
                worker.receive()
        except BaseException:
            self.close()
            raise

    def generate(
        self, prompts: Prompts, sampling: Sampling, constraints: Constraints = None, places: Places = None
    ) -> list[list[Completion]]:
        """See Engine."""
        results: list[list[Completion]] = [[] for _ in prompts]
        shares = [list(range(start, len(prompts), len(self._workers))) for start in range(len(self._workers))]
        busy = [(worker, rows) for worker, rows in zip(self._workers, shares, strict=True) if rows]
        for worker, rows in busy:
            request = {
                "prompts": [list(prompts[row]) for row in rows],
                "sampling": asdict(sampling),
                "constraints": [asdict(constraints[row]) for row in rows] if constraints else None,
                "places": [places[row] if places else row for row in rows],
            }
            worker.send(request)
        for worker, rows in busy:
            for row, samples in zip(rows, worker.receive(), strict=True):
                results[row] = [Completion(ids, logprobs) for ids, logprobs in samples]
        return results

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


class _Worker:
    """One process. It reads requests from its standard input, a line of JSON each, and answers on a pipe: libraries print on the rest."""

    def __init__(self, devices: str | None, threads: int):
        reading, writing = os.pipe()
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **({} if devices is None else {VISIBLE: devices})}
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE, str(writing)],
            stdin=subprocess.PIPE,
            stdout=self._errors,
            stderr=self._errors,
            pass_fds=[writing],
            env=environment,
        )
        os.close(writing)  # so that the end of the process is the end of the pipe
        self._answers = reading

    def send(self, request: object) -> None:
        assert self._process.stdin
        with suppress(BrokenPipeError):  # it has died: `receive` says of what
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self) -> Any:
        if (line := self._line()) is None:
            self._process.wait()
            raise StageError(f"an engine process (engine.data_parallel) ended with code {self._process.returncode}: {self._last_words()}")
        answer = json.loads(line)
        if "error" in answer:
            raise StageError(answer["error"])
        return answer["result"]

    def _line(self) -> bytes | None:
        """None where the process has ended. Its end is looked for, too: a process that it has started may hold the pipe open."""
        pieces: list[bytes] = []
        while not (pieces and pieces[-1].endswith(b"\n")):
            if select.select([self._answers], [], [], 1.0)[0]:
                pieces.append(os.read(self._answers, 2**20))
                if not pieces[-1]:
                    return None
            elif self._process.poll() is not None:
                return None
        return b"".join(pieces)

    def close(self) -> None:
        with suppress(BrokenPipeError):
            assert self._process.stdin
            self._process.stdin.close()  # it ends by itself, and frees its GPU
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._answers)
        self._errors.close()

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read()[-4000:].decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "without a word"


def shares_of_devices(params: EngineParams | TeacherEngineParams) -> Iterator[str | None]:
    """For each process the value of CUDA_VISIBLE_DEVICES; None where there are no GPUs to share out. StageError for too few of them."""
    visible = gpus()
    needed = params.data_parallel * params.tensor_parallel
    if not visible:
        yield from [None] * params.data_parallel
        return
    if len(visible) < needed:
        raise StageError(
            f"engine.data_parallel {params.data_parallel} times tensor_parallel {params.tensor_parallel} are {needed} GPUs, and "
            f"{len(visible)} are visible here; lower one of them"
        )
    for start in range(0, needed, params.tensor_parallel):
        yield ",".join(visible[start : start + params.tensor_parallel])


def gpus() -> list[str]:
    """What this process may use, as CUDA_VISIBLE_DEVICES names it."""
    import torch  # not needed to check parameters

    if not torch.cuda.is_available():
        return []
    named = [name for name in os.environ.get(VISIBLE, "").split(",") if name]
    return named or [str(number) for number in range(torch.cuda.device_count())]
