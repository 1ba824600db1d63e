"""The interface of every engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stages.shared.slates.constraint import PermutationConstraint


@dataclass(frozen=True)
class Sampling:
    """temperature 0 = greedy. `samples`: completions a prompt. Completions end with the end token, or at max_tokens without it."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Completion:
    """token_ids: what was generated, the end token included. logprobs: of each, at temperature 1 and unconstrained."""

    token_ids: list[int]
    logprobs: list[float]


class Engine(Protocol):
    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, constraints: Sequence[PermutationConstraint] | None = None
    ) -> list[list[Completion]]:
        """prompts: token ids; constraints: one a prompt, or none. Returns
        `sampling.samples` completions for each prompt, in their order."""
        ...
