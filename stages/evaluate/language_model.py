"""One language model, opened once, and asked for the orders of slates in whatever way is measured."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.shared.evaluation.rankings import Rankings
from stages.shared.generation.base import Engine, Sampling
from stages.shared.generation.choose import open_engine
from stages.shared.generation.params import EngineParams
from stages.shared.lm.models import load_tokenizer
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.slate import Slate


@dataclass(frozen=True)
class LanguageModel:
    engine: Engine
    encoded: EncodedLayout

    def answers(self, slates: Sequence[Slate], sampling: Sampling, constrained: bool = True) -> list[Rankings]:
        """`sampling.samples` answers to each slate, one Rankings a sample; `constrained`: decoded under the constraint
        (stages/shared/slates/constraint.py)."""
        constraints = self.encoded.constraints(slates, enforced=constrained)
        completions = self.engine.generate(self.encoded.prompts(slates), sampling, constraints)
        names = [constraint.names for constraint in constraints]
        return [self._read([of_prompt[sample].token_ids for of_prompt in completions], names) for sample in range(sampling.samples)]

    def _read(self, completions: list[list[int]], names: list[list[list[int]]]) -> Rankings:
        reader, reasoning = self.encoded.reader, self.encoded.layout.reasoning
        read = [reader.read(ids, slate_names, reasoning) for ids, slate_names in zip(completions, names, strict=True)]
        orders = [answer.order or tuple(range(len(slate_names))) for answer, slate_names in zip(read, names, strict=True)]
        thoughts = [thought_length(ids, reader.think_end, reasoning) for ids in completions]
        rest = [len(ids) - thought for ids, thought in zip(completions, thoughts, strict=True)]
        texts = self.encoded.tokenizer.batch_decode(completions, skip_special_tokens=False)
        return Rankings(np.array(orders), [answer.fault for answer in read], texts, thoughts, rest)


@contextmanager
def open_language_model(folder: Path, layout: Layout, engine: EngineParams, seed: int, threads: int) -> Iterator[LanguageModel]:
    with open_engine(engine, folder, seed, threads) as opened:
        yield LanguageModel(opened, EncodedLayout(layout, load_tokenizer(folder)))


def thought_length(completion: Sequence[int], think_end: int, reasoning: bool) -> int:
    """Tokens of the think block, its end included; all of them where it was never closed."""
    if not reasoning:
        return 0
    ids = list(completion)
    return ids.index(think_end) + 1 if think_end in ids else len(ids)
