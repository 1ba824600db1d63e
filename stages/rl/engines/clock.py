"""What a process spends its time on: generating, training, or neither."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

GENERATING, TRAINING = "generating", "training"


class StepClock:
    """Spans may overlap, be of several threads, and reach from one step into the next."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._spans: list[tuple[str, list[float]]] = []  # the end is infinite while a span is open

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        span = [time.monotonic(), float("inf")]
        self._spans.append((name, span))
        try:
            yield
        finally:
            span[1] = time.monotonic()

    def shares(self) -> dict[str, float]:
        """Of the time since the last call: share_generating and share_training, which may overlap, and share_idle, in neither."""
        now = time.monotonic()
        whole = max(now - self._begun, 1e-9)
        by_name = {name: self._spent(now, [name]) / whole for name in (GENERATING, TRAINING)}
        idle = max(0.0, 1 - self._spent(now, [GENERATING, TRAINING]) / whole)
        self._begun = now
        self._spans = [one for one in self._spans if one[1][1] > now]
        return {**{f"share_{name}": share for name, share in by_name.items()}, "share_idle": idle}

    def _spent(self, now: float, names: list[str]) -> float:
        """Seconds in at least one span of these names since the last step."""
        spent, reached = 0.0, self._begun
        for start, end in sorted(span for name, span in self._spans if name in names):
            start, end = max(start, reached), min(end, now)
            if end > start:
                spent, reached = spent + end - start, end
        return spent
