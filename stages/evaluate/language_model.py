"""One language model, opened once, and asked for the orders of slates in whatever way is measured."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from stages.shared.evaluation.rankings import Rankings
from stages.shared.generation.base import Engine, Sampling
from stages.shared.generation.choose import EngineParams, open_engine
from stages.shared.lm.models import load_tokenizer
from stages.shared.slates.answers import AnswerReader
from stages.shared.slates.constraint import LayoutTokenIds, PermutationConstraint
from stages.shared.slates.prompts import THINK_END, Catalog, PromptParams, Slate, slate_prompt


@dataclass(frozen=True)
class LanguageModel:
    """`reasoning`: whether it thinks before it answers."""

    engine: Engine
    tokenizer: PreTrainedTokenizerBase
    catalog: Catalog
    options: PromptParams
    reasoning: bool

    @cached_property
    def sid_ids(self) -> list[list[int]]:
        """Token ids of every item's SID: once a model, however large the catalogue and however often it is asked."""
        ids: list[list[int]] = self.tokenizer(self.catalog.sids, add_special_tokens=False)["input_ids"]
        return ids

    @cached_property
    def layout(self) -> LayoutTokenIds:
        return LayoutTokenIds.of(self.tokenizer)

    @cached_property
    def reader(self) -> AnswerReader:
        return AnswerReader(self.tokenizer)

    def answers(self, slates: Sequence[Slate], sampling: Sampling, constrained: bool = True) -> list[Rankings]:
        """`sampling.samples` answers to each slate, one Rankings a sample; `constrained`: decoded under the constraint
        (stages/shared/slates/constraint.py)."""
        texts = [slate_prompt(slate, self.catalog, self.options, self.reasoning) for slate in slates]
        prompts = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        candidates = [[self.sid_ids[item] for item in slate.candidates] for slate in slates]
        constraints = [PermutationConstraint(self.layout, sids, self.reasoning) for sids in candidates] if constrained else None
        completions = self.engine.generate(prompts, sampling, constraints)
        return [self._read([of_prompt[sample].token_ids for of_prompt in completions], candidates) for sample in range(sampling.samples)]

    def _read(self, completions: list[list[int]], candidates: list[list[list[int]]]) -> Rankings:
        read = [self.reader.read(ids, sids, self.reasoning) for ids, sids in zip(completions, candidates, strict=True)]
        orders = [answer.order or tuple(range(len(sids))) for answer, sids in zip(read, candidates, strict=True)]
        think_end = int(self.tokenizer.get_vocab()[THINK_END])
        thoughts = [thought_length(ids, think_end, self.reasoning) for ids in completions]
        rest = [len(ids) - thought for ids, thought in zip(completions, thoughts, strict=True)]
        texts = self.tokenizer.batch_decode(completions, skip_special_tokens=False)
        return Rankings(np.array(orders), [answer.fault for answer in read], texts, thoughts, rest)


@contextmanager
def open_language_model(
    folder: Path, catalog: Catalog, options: PromptParams, engine: EngineParams, reasoning: bool, seed: int, threads: int
) -> Iterator[LanguageModel]:
    with open_engine(engine, folder, seed, threads) as opened:
        yield LanguageModel(opened, load_tokenizer(folder), catalog, options, reasoning)


def thought_length(completion: Sequence[int], think_end: int, reasoning: bool) -> int:
    """Tokens of the think block, its end included; all of them where it was never closed."""
    if not reasoning:
        return 0
    ids = list(completion)
    return ids.index(think_end) + 1 if think_end in ids else len(ids)
