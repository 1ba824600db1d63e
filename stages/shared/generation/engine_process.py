"""An engine in a process of its own: it reads requests from its standard input, a line of JSON each, and answers on a pipe."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any

from stages.shared.core.errors import StageError
from stages.shared.generation.base import Completion, Constraints, Prompts, Sampling
from stages.shared.slates.constraint import PermutationConstraint
from stages.shared.slates.json_constraint import JsonConstraint

VISIBLE = "CUDA_VISIBLE_DEVICES"
MODULE = "stages.shared.generation.engine_worker"
# Of torchrun: an engine that found them would take itself for a part of the training.
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LAUNCHER_PREFIXES = ("ROLE_", "TORCHELASTIC_", "GR2_BEGUN")


class EngineEnded(StageError):
    """The process is gone. code: its exit code, minus the signal that ended it; last_words: what it printed last."""

    def __init__(self, name: str, code: int, last_words: str):
        super().__init__(f"{name} ended with code {code}: {last_words}")
        self.code, self.last_words = code, last_words

    @property
    def how(self) -> str:
        if self.code >= 0:
            return f"ended with code {self.code}: {self.last_words}"
        return f"was ended by signal {-self.code} ({signal.Signals(-self.code).name})"


class EngineProcess:
    """name: what an error calls it. devices: the GPUs it sees, None = there are none."""

    def __init__(self, name: str, devices: str | None, threads: int):
        reading, writing = os.pipe()
        environment = {name: value for name, value in os.environ.items() if not is_of_launcher(name)}
        environment |= {"OMP_NUM_THREADS": str(threads), **({} if devices is None else {VISIBLE: devices})}
        if devices is None:
            environment.setdefault("TORCHDYNAMO_DISABLE", "1")  # vLLM would compile parts of its sampler: half a minute at the start
        self.name = name
        # A file: libraries print on both streams, and a pipe that nobody reads fills up.
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

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, request: object) -> None:
        assert self._process.stdin
        with suppress(BrokenPipeError):  # it has died: `receive` says of what
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self) -> Any:
        if (line := self._line()) is None:
            self._process.wait()
            raise EngineEnded(self.name, self._process.returncode, self._last_words())
        answer = json.loads(line)
        if "error" in answer:
            raise StageError(answer["error"])
        return answer["result"]

    def send_prompts(self, prompts: Prompts, sampling: Sampling, constraints: Constraints, places: Sequence[int]) -> None:
        self.send(
            {
                "prompts": [list(prompt) for prompt in prompts],
                "sampling": asdict(sampling),
                # The tables of a grammar are as long as the vocabulary, and follow from the tokenizer, which the other side has.
                "constraints": [{**asdict(one), **without_grammar(one)} for one in constraints] if constraints else None,
                "places": list(places),
            }
        )

    def receive_completions(self) -> list[list[Completion]]:
        return [[Completion(ids, raw, drawn_logprobs=drawn) for ids, raw, drawn in samples] for samples in self.receive()]

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


def without_grammar(constraint: PermutationConstraint) -> dict[str, None]:
    return {"grammar": None} if isinstance(constraint, JsonConstraint) else {}


def is_of_launcher(variable: str) -> bool:
    return variable in LAUNCHER or variable.startswith(LAUNCHER_PREFIXES)


def gpus() -> list[str]:
    """What this process may use, as CUDA_VISIBLE_DEVICES names it."""
    import torch  # not needed to check parameters

    if not torch.cuda.is_available():
        return []
    named = [name for name in os.environ.get(VISIBLE, "").split(",") if name]
    return named or [str(number) for number in range(torch.cuda.device_count())]
