"""One language model, opened once, and asked for the orders of slates in whatever way is measured."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from stages.shared.generation.base import Completion, Engine, Sampling
from stages.shared.generation.choose import open_engine
from stages.shared.generation.invocations import Invocation, Invocations
from stages.shared.generation.params import EngineParams
from stages.shared.lm.models import load_tokenizer
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.reranking.padding import padded_orders
from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.slates.reranking.windows import WHOLE, Windows, rank_by_windows
from stages.shared.slates.slate import Slate
from stages.shared.slates.windows import in_windows


@dataclass(frozen=True)
class LanguageModel:
    """name, record: of the model, and where what it was asked is kept."""

    engine: Engine
    encoded: EncodedLayout
    name: str = ""
    record: Invocations = field(default_factory=lambda: Invocations(False))
    windows: Windows = WHOLE

    def answers(self, slates: Sequence[Slate], sampling: Sampling, constrained: bool = True, kind: str = "") -> list[Rankings]:
        """`sampling.samples` answers to each slate, one Rankings a sample; `constrained`: decoded under the constraint
        (stages/shared/slates/constraint.py). kind: of the answers, for the record. Slates longer than a window are answered in windows."""
        if not in_windows(slates, self.windows.size):
            return self._answers(slates, sampling, constrained, kind)
        found = []
        # Each sample goes its own way through the windows, for the next one shows what the last one made of it.
        for sample in range(sampling.samples):
            alone = replace(sampling, samples=1, seed=sampling.seed * sampling.samples + sample)
            ask = partial(self._answers, sampling=alone, constrained=constrained, kind=kind)
            found.append(rank_by_windows(slates, ask, self.windows))
        return found

    def _answers(self, slates: Sequence[Slate], sampling: Sampling, constrained: bool, kind: str) -> list[Rankings]:
        constraints = self.encoded.constraints(slates, constrained, sampling.max_tokens)
        prompts = self.encoded.prompts(slates)
        begin = time.monotonic()
        completions = self.engine.generate(prompts, sampling, constraints)
        if self.record.kept:
            self._keep(slates, prompts, completions, kind, time.monotonic() - begin)
        names = [constraint.names for constraint in constraints]
        return [self._read([of_prompt[sample].token_ids for of_prompt in completions], names) for sample in range(sampling.samples)]

    def _keep(
        self,
        slates: Sequence[Slate],
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[Completion]],
        kind: str,
        seconds: float,
    ) -> None:
        share = seconds / max(1, sum(map(len, completions)))
        tokenizer, rows = self.encoded.tokenizer, []
        for slate, prompt, samples in zip(slates, prompts, completions, strict=True):
            text = str(tokenizer.decode(list(prompt), skip_special_tokens=False))
            for sample, one in enumerate(samples):
                finish = "stop" if one.token_ids and one.token_ids[-1] == tokenizer.eos_token_id else "length"
                answer = str(tokenizer.decode(one.token_ids, skip_special_tokens=False))
                counts = (len(prompt), len(one.token_ids), one.seconds or share)
                rows.append(Invocation(slate.slate, self.name, kind, sample, type(self.engine).__name__, text, answer, *counts, finish))
        self.record.add(rows)

    def _read(self, completions: list[list[int]], names: list[list[list[int]]]) -> Rankings:
        reader, reasoning = self.encoded.reader, self.encoded.layout.reasoning
        read = [reader.read(ids, slate_names, reasoning) for ids, slate_names in zip(completions, names, strict=True)]
        orders = [answer.order or tuple(range(len(slate_names))) for answer, slate_names in zip(read, names, strict=True)]
        thoughts = [thought_length(ids, reader.think_end, reasoning) for ids in completions]
        rest = [len(ids) - thought for ids, thought in zip(completions, thoughts, strict=True)]
        texts = self.encoded.tokenizer.batch_decode(completions, skip_special_tokens=False)
        return Rankings(padded_orders(orders), [answer.fault for answer in read], texts, thoughts, rest)


@contextmanager
def open_language_model(
    folder: Path,
    layout: Layout,
    engine: EngineParams,
    seed: int,
    threads: int,
    name: str = "",
    record: Invocations | None = None,
    windows: Windows = WHOLE,
) -> Iterator[LanguageModel]:
    with open_engine(engine, folder, seed, threads) as opened:
        yield LanguageModel(opened, EncodedLayout(layout, load_tokenizer(folder)), name, record or Invocations(False), windows)


def thought_length(completion: Sequence[int], think_end: int, reasoning: bool) -> int:
    """Tokens of the think block, its end included; all of them where it was never closed."""
    if not reasoning:
        return 0
    ids = list(completion)
    return ids.index(think_end) + 1 if think_end in ids else len(ids)
