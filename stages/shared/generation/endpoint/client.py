"""Requests to an OpenAI-compatible server: side by side, tried again where that can help, counted, kept in a journal."""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any

import httpx

from stages.shared.core.errors import StageError
from stages.shared.core.progress import Progress, note
from stages.shared.generation.endpoint.answers import FATAL, ServerAnswer, read_answer, retry_after, server_says
from stages.shared.generation.journal import AnswerJournal, key_of
from stages.shared.generation.params import KEY_WORDS, EndpointParams

GIVE_UP = 20  # requests that failed for good, one after the other: the server is gone, and waiting for each of thousands takes days

Check = Callable[[Mapping[str, Any]], None]  # raises UnreadableAnswer for a choice that is none


@dataclass
class Usage:
    """failed: fault -> requests that were given up; retried: fault -> tries that were repeated; both by kind of fault."""

    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)


class EndpointClient:
    """skip_failed: a request that keeps failing is a ServerAnswer with a fault; otherwise a StageError."""

    def __init__(self, params: EndpointParams, journal: AnswerJournal | None = None, skip_failed: bool = False):
        if not params.base_url or not params.model:
            raise StageError("engine.endpoint: base_url and model are needed where engine.kind is endpoint; name the server and its model")
        self.params, self.journal, self.skip_failed = params, journal, skip_failed
        self.usage = Usage()
        self._key = api_key(params)
        self._http = httpx.Client(
            timeout=params.timeout_s,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            limits=httpx.Limits(max_connections=params.concurrency, max_keepalive_connections=params.concurrency),
        )
        self._stopped, self._lock, self._not_before, self._failures = Event(), Lock(), 0.0, 0

    def ask(self, path: str, bodies: Sequence[Mapping[str, object]], check: Check) -> list[ServerAnswer]:
        """One answer a body, in their order."""
        requests = [{"model": self.params.model, **body, **self.params.extra} for body in bodies]
        keys = [key_of([self.params.base_url, path, request]) for request in requests]
        answers = {place: ServerAnswer(**kept) for place, key in enumerate(keys) if self.journal and (kept := self.journal.get(key))}
        with Progress("requests", len(requests), done=len(answers), unit="request") as progress:
            pool = ThreadPoolExecutor(self.params.concurrency)
            try:
                open_requests = {
                    pool.submit(self._answer, path, request, key, check): place
                    for place, (request, key) in enumerate(zip(requests, keys, strict=True))
                    if place not in answers
                }
                for future in as_completed(open_requests):
                    answers[open_requests[future]] = future.result()
                    progress.add()
            finally:
                self._stopped.set()  # wakes those that wait for their next try
                pool.shutdown(cancel_futures=True)
                self._stopped.clear()
        for answer in answers.values():
            self._count(answer)
        return [answers[place] for place in range(len(requests))]

    def close(self) -> None:
        self._http.close()
        if retried := sum(self.usage.retried.values()):
            note(f"{self.params.base_url}: {retried} tries were repeated ({_listed(self.usage.retried)})")

    def metrics(self) -> dict[str, object]:
        """Of the answers used, wherever they came from: a run that was resumed has the figures of one that was not."""
        usage, params = self.usage, self.params
        cost = (usage.prompt_tokens * params.input_price + usage.completion_tokens * params.output_price) / 1e6
        return {
            "answers": usage.answers,
            "failed": dict(sorted(usage.failed.items())),
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cost": cost,
        }

    def _answer(self, path: str, body: Mapping[str, object], key: str, check: Check) -> ServerAnswer:
        answer = self._request(path, body, check)
        with self._lock:
            self._failures = self._failures + 1 if answer.fault else 0
            if not answer.fault and self.journal:
                self.journal.put(key, answer.to_keep())
            if answer.fault and (not self.skip_failed or self._failures >= GIVE_UP):
                raise StageError(self._failure(answer))
        return answer

    def _failure(self, answer: ServerAnswer) -> str:
        requests = f"{self._failures} requests one after the other" if self.skip_failed else "a request"
        kept = ": what it answered is kept" if self.journal else ""
        return (
            f"{self.params.base_url}: {requests} failed (the last one: {answer.fault}, {answer.reason}; {self.params.retries} tries more "
            f"were made of each where that can help); look at the server and run again{kept}"
        )

    def _count(self, answer: ServerAnswer) -> None:
        if answer.fault:
            self.usage.failed[answer.fault] += 1
            return
        self.usage.answers += 1
        self.usage.prompt_tokens += answer.prompt_tokens
        self.usage.completion_tokens += answer.completion_tokens

    def _request(self, path: str, body: Mapping[str, object], check: Check) -> ServerAnswer:
        url = f"{self.params.base_url.rstrip('/')}/{path}"
        for attempt in range(self.params.retries + 1):
            self._pause(self._not_before - time.monotonic())
            begin, asked_to_wait = time.monotonic(), 0.0
            try:
                response = self._http.post(url, json=body)
                if response.status_code in FATAL:
                    raise StageError(self._fatal(response, url))
                answer = read_answer(response, time.monotonic() - begin, check)
                asked_to_wait = retry_after(response)
            except httpx.TimeoutException:
                answer = ServerAnswer(fault="timeout", reason=f"no answer in {self.params.timeout_s:g} s", again=True)
            except httpx.TransportError as error:
                answer = ServerAnswer(fault="connection", reason=str(error) or type(error).__name__, again=True)
            if not answer.fault:
                return answer
            if not answer.again or attempt == self.params.retries or self._stopped.is_set():
                break
            with self._lock:
                self.usage.retried[answer.fault] += 1
                if asked_to_wait:  # of everybody: the others would only be refused, too
                    self._not_before = max(self._not_before, time.monotonic() + asked_to_wait)
            # Spread, so that requests refused together do not come back together.
            self._pause(random.uniform(0.5, 1.5) * min(self.params.longest_wait_s, self.params.first_wait_s * 2**attempt))
        return answer.with_reason(self._without_key(answer.reason))

    def _pause(self, seconds: float) -> None:
        if seconds > 0:
            self._stopped.wait(seconds)

    def _fatal(self, response: httpx.Response, url: str) -> str:
        variable = self.params.key_variable or "that engine.endpoint.key_variable names"
        text = FATAL[response.status_code]
        return self._without_key(text.format(url=url, says=server_says(response), model=self.params.model, variable=variable))

    def _without_key(self, text: str) -> str:
        """Servers quote a key that they refuse."""
        return text.replace(self._key, f"<{self.params.key_variable}>") if self._key else text


def api_key(params: EndpointParams) -> str:
    """The key, from the environment alone; "" where no variable is named."""
    if not params.key_variable:
        return ""
    if not any(word in params.key_variable for word in KEY_WORDS):
        raise StageError(
            f"engine.endpoint.key_variable: a name with one of {', '.join(KEY_WORDS)} in it is expected, as TEACHER_API_KEY: by that word "
            "its value is kept out of what is printed and recorded (docs/security.md)"
        )
    key = os.environ.get(params.key_variable, "").strip()
    if not key:
        raise StageError(
            f"engine.endpoint.key_variable: the environment variable {params.key_variable} is not set; export it and run again"
        )
    return key


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{fault}: {count}" for fault, count in counts.most_common())
