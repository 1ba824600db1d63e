"""Requests and results as lines of JSON between the server and its engine's process. Nothing that is read can run code, as a pickle can."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages.serve.modes import ADAPTIVE_MARGIN
from stages.serve.requests import RankRequest, RankResult
from stages.shared.core.errors import StageError


@dataclass(frozen=True)
class ServedModel:
    """name: what answers call it. asked: the name by which it was asked for, which may mean another version later.

    run: the folder of the finished run whose tables and params.yaml it goes with. mode, one_pass, margin: see open_reranker; one_pass "" =
    the same model. budget: seconds after which nobody waits for an answer any more; 0 = however long it takes.
    """

    name: str
    model: str
    run: str = "."
    mode: str = "reasoning"
    one_pass: str = ""
    margin: float = ADAPTIVE_MARGIN
    asked: str = ""
    budget: float = 0.0

    @property
    def folder(self) -> Path:
        return Path(self.run)


def reason_of(error: Exception) -> str:
    """What is said of an error to whoever asked for the model."""
    return str(error) if isinstance(error, StageError) else f"{type(error).__name__}: {error}"


def line(content: Any) -> bytes:
    return json.dumps(content).encode() + b"\n"


def request_lines(requests: Sequence[RankRequest]) -> bytes:
    return line({"requests": [asdict(request) for request in requests]})


def read_requests(message: dict[str, Any]) -> list[RankRequest]:
    return [RankRequest(**row) for row in message["requests"]]


def result_lines(results: Sequence[RankResult]) -> bytes:
    # JSON has no whole numbers for keys.
    return line({"results": [{**asdict(result), "relevances": list(result.relevances.items())} for result in results]})


def read_results(message: dict[str, Any]) -> list[RankResult]:
    return [
        RankResult(**{**row, "order": tuple(row["order"]), "scores": tuple(row["scores"]), "relevances": dict(row["relevances"])})
        for row in message["results"]
    ]
