"""The rollouts of each step: drawn now, from the policy as it is, or while the step before them was learnt from (rl.rollout.ahead).

One step of asynchrony (Noukhovitch et al. 2024, Asynchronous RLHF, arXiv 2410.18252): the engine is never more than one step behind the
policy. The sampler's own log-probabilities stay those of the distribution that was drawn from, so ratios and importance weights are right.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from stages.rl.engines.beside import EngineBeside
from stages.rl.engines.choose import RolloutEngine
from stages.rl.engines.clock import GENERATING, StepClock
from stages.rl.params import RlParams
from stages.rl.rollouts import Rollouts


class StepRollouts:
    """draw(step): samples and scores, in whatever thread it is called. saved: rollouts of the first step that an earlier run had drawn."""

    def __init__(
        self,
        engine: RolloutEngine,
        params: RlParams,
        clock: StepClock,
        draw: Callable[[int], Rollouts],
        saved: Rollouts | None = None,
    ):
        self.engine, self.params, self.clock = engine, params, clock
        self._draw = draw
        self._thread = ThreadPoolExecutor(1)
        self._next: Future[Rollouts] | None = None
        if saved is not None:
            self._next = Future()
            self._next.set_result(saved)

    def take(self, step: int) -> Rollouts:
        """Those of `step`; with rl.rollout.ahead the next ones begin to be drawn. The policy must not be learning."""
        ahead, is_first = self.params.rollout.ahead, self._next is None
        if self._next is None:
            with self.engine.ready():
                rollouts = self._timed(step)
        else:
            rollouts, self._next = self._next.result(), None
        if ahead and step + 1 < self.params.steps:
            if not is_first and isinstance(self.engine, EngineBeside):
                self.engine.take_weights()
            self._next = self._thread.submit(self._timed, step + 1)
        return rollouts

    def drawn_ahead(self) -> Rollouts | None:
        """Those of the next step, when they are all there; None without rl.rollout.ahead, and at the end."""
        return self._next.result() if self._next else None

    def close(self) -> None:
        self._thread.shutdown(wait=False)  # what it waits for ends with the engine

    def _timed(self, step: int) -> Rollouts:
        with self.clock.measure(GENERATING):
            return self._draw(step)
