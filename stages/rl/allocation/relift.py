"""ReLIFT (Ma et al. 2025, Learning What Reinforcement Learning Can't, arXiv 2506.07527): RL, with SFT steps on what it cannot learn.

A slate of which no answer is right teaches RL nothing, or only what not to say. If the teacher's trace of it was accepted, it waits; when
enough wait, one optimizer step is taken on their traces, L = -mean of log p(token), and they go.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from stages.rl.params import RlParams
from stages.rl.policy import Policy, all_sum
from stages.rl.rewards.orders import is_right
from stages.rl.rollouts import Group, Task
from stages.shared.core.errors import StageError
from stages.shared.core.launch import world_size
from stages.shared.lm.encoding import encode
from stages.shared.slates.layouts.dialogue import is_dialogue
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.layouts.marks import THINK_END
from stages.shared.slates.traces import taught_document


class Demonstration(NamedTuple):
    """Token ids. The prompt is the one that the trace was written for: the order in which it shows the candidates is its own."""

    prompt: list[int]
    response: list[int]


def demonstrations(traces: pl.DataFrame, encoded: EncodedLayout, tasks: Sequence[Task]) -> dict[int, Demonstration]:
    """slate -> the first accepted trace of it, for the slates of `tasks`. StageError where none has one, or another layout wrote them."""
    reasoning, dialogue = encoded.layout.reasoning, encoded.layout.dialogue
    first = traces.filter(pl.col("slate").is_in([task.slate for task in tasks])).unique("slate", keep="first", maintain_order=True)
    if first.is_empty():
        raise StageError("data/traces/traces.parquet: no trace of any training slate; set rl.allocation.relift_batch to 0, or rerun traces")
    prompt = first["prompt"][0]
    if is_dialogue(prompt) != dialogue or prompt.endswith(THINK_END) == reasoning:
        raise StageError("data/traces/traces.parquet: written in another layout than the section prompt says; rerun: gr2 run traces")
    documents = [
        taught_document(encoded.fitted(text) if dialogue else text, trace, answer, reasoning)
        for text, trace, answer in first.select("prompt", "trace", "answer").iter_rows()
    ]
    found = {}
    for slate, example in zip(first["slate"], encode(documents, encoded.tokenizer), strict=True):
        start = example.weights.index(1.0)
        found[int(slate)] = Demonstration(example.ids[:start], example.ids[start:])
    return found


class FailedSlates:
    """Those that wait for an SFT step, in the order in which they failed."""

    def __init__(self, traces: Mapping[int, Demonstration]):
        self.traces = traces
        self.waiting: list[int] = []

    def see(self, groups: Sequence[Group]) -> None:
        for group in groups:
            task = group.task
            failed = not any(answer.order is not None and is_right(answer.order, task.target_rank, task.grades) for answer in group.answers)
            if failed and task.slate in self.traces and task.slate not in self.waiting:
                self.waiting.append(task.slate)

    def take(self, batch: int) -> list[Demonstration]:
        """The first `batch`, where so many wait in each process on average; else none. Every process calls it."""
        if all_sum(len(self.waiting)) < batch * world_size():
            return []
        taken, self.waiting = self.waiting[:batch], self.waiting[batch:]
        return [self.traces[slate] for slate in taken]

    def state(self) -> Any:
        return list(self.waiting)

    def load_state(self, state: Any) -> None:
        self.waiting = list(state)


def sft_step(policy: Policy, taken: Sequence[Demonstration], params: RlParams, pad_id: int) -> dict[str, float]:
    """One optimizer step; none where no process has a trace. In as many parts as an update has: DeepSpeed steps after so many."""
    measured = {"sft_traces": float(len(taken)), "sft_loss": 0.0}
    tokens = all_sum(sum(len(one.response) for one in taken)) / world_size()
    if not tokens:
        return measured
    microbatches = max(1, -(-params.prompts // params.micro_prompts))
    for places in np.array_split(np.arange(len(taken)), microbatches):
        part = [taken[place] for place in places]
        if part:
            scores = policy.score([one.prompt for one in part], [[one.response] for one in part], pad_id)
            loss = -(scores.logp * scores.mask).sum() / tokens
        else:
            loss = policy.zero_loss()
        policy.backward(loss * microbatches)
        measured["sft_loss"] += loss.item()
    policy.step()
    return measured
