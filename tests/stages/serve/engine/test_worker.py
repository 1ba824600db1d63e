"""What runs in the engine's process, over rerankers that fail when told."""

import io
import json
import math
import socket

import pytest

from stages.serve.engine.messages import read_results, request_lines
from stages.serve.engine.worker import FAILURES, PROBE, answer_all
from stages.serve.requests import ENGINE, RankRequest, RankResult, fallback

BAD, GOOD = RankRequest([9], [5, 6]), RankRequest([1], [5, 6])


class Failing:
    """Fails at what `fails` holds."""

    def __init__(self, *fails: RankRequest):
        self.fails = fails

    def rank(self, requests: list[RankRequest], seconds: float = math.inf) -> list[RankResult]:
        return [fallback(2, ENGINE) if request in self.fails else RankResult((1, 0), (1.0, 0.5)) for request in requests]


def answers(reranker: Failing, requests: list[RankRequest]) -> list[str]:
    """The fallbacks of one request a message."""
    ours, theirs = socket.socketpair()
    try:
        with ours:
            answer_all(reranker, ours, io.BytesIO(b"".join(request_lines([request]) for request in requests)))
    finally:
        with theirs, theirs.makefile("rb") as lines:
            found = [read_results(json.loads(line))[0].fallback for line in lines]
            answers.found = found
    return found


def test_an_engine_that_answers_nothing_any_more_ends_and_every_request_has_its_answer_before() -> None:
    with pytest.raises(SystemExit):
        answers(Failing(BAD, GOOD, PROBE), [GOOD] * 9)
    assert answers.found == [ENGINE] * FAILURES


def test_requests_that_fail_each_time_do_not_end_an_engine_that_answers_others() -> None:
    assert answers(Failing(BAD), [BAD] * 4 + [GOOD]) == [ENGINE] * 4 + [""]
