"""The interface of every engine."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from stages.shared.slates.constraint import PermutationConstraint

Prompts = Sequence[Sequence[int]]  # token ids
Constraints = Sequence[PermutationConstraint] | None  # one a prompt, or none
Places = Sequence[int] | None  # see Engine


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
    """token_ids: what was generated, the end token included. logprobs: of each, at temperature 1 and unconstrained; empty of an engine that
    follows a training, where it gives drawn_logprobs instead (vllm).

    drawn_logprobs: of each, in the distribution that it was drawn from: at the temperature, and under the constraint. Empty where the
    engine does not know them, for greedy answers, and with top_p.

    fault: why there is no completion, where an engine may fail at single prompts; else "". finish: as the server says (stop, length);
    "" = an engine in this process, where the end token says it. prompt_tokens, seconds: of this request, where the engine knows them.
    """

    token_ids: list[int]
    logprobs: list[float]
    fault: str = ""
    finish: str = ""
    prompt_tokens: int = 0
    seconds: float = 0.0
    drawn_logprobs: list[float] = field(default_factory=list)


class Engine(Protocol):
    def generate(
        self, prompts: Prompts, sampling: Sampling, constraints: Constraints = None, places: Places = None
    ) -> list[list[Completion]]:
        """prompts: token ids; constraints: one a prompt, or none. Returns
        `sampling.samples` completions for each prompt, in their order.

        places: a number a prompt, of which (with the seed) its draws are made; None: its place in `prompts`. So a part of the prompts draws
        what it would draw among all.
        """
        ...


@dataclass(frozen=True)
class Reply:
    """The answer to a conversation, as text: what a server that knows no token ids gives. fault, finish, seconds: see Completion."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    logprobs: tuple[float, ...] = ()
    fault: str = ""
    finish: str = ""
    seconds: float = 0.0


Message = dict[str, str]  # role, content


class ChatEngine(Protocol):
    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling, stop: Sequence[str] = ()) -> list[list[Reply]]:
        """`sampling.samples` replies to each conversation. stop: texts that end a reply and are no part of it."""
        ...
