"""Greedy answers of a model on disk to slates, kept so that a killed run asks for none of them twice."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.distil.params import DistilParams
from stages.shared.generation.base import Completion, Constraints, Places, Prompts, Sampling
from stages.shared.generation.choose import open_engine
from stages.shared.generation.journal import AnswerJournal
from stages.shared.generation.resumable import ResumableEngine, folder_sha256
from stages.shared.lm.models import load_tokenizer
from stages.shared.slates.answers import Answer
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.slate import Slate

KEPT_TOGETHER = 512  # prompts between two entries of the journal


@dataclass(frozen=True)
class Answered:
    """A slate, the prompt it was shown in, and what was said. answer: ranks as shown."""

    slate: Slate
    prompt: list[int]
    said: list[int]
    answer: Answer


@dataclass
class EngineWhenAsked:
    """Opens the model for each call: nothing is loaded where all answers are known."""

    params: DistilParams
    folder: Path

    def generate(
        self, prompts: Prompts, sampling: Sampling, constraints: Constraints = None, places: Places = None
    ) -> list[list[Completion]]:
        with open_engine(self.params.engine, self.folder, self.params.seed, self.params.threads) as engine:
            return engine.generate(prompts, sampling, constraints, places)


def ask(
    folder: Path, slates: Sequence[Slate], layout: Layout, params: DistilParams, enforced: bool, journal: AnswerJournal
) -> list[Answered]:
    """One greedy answer to each slate of the model at `folder`, in its own tokens. enforced: under the constraint."""
    encoded = EncodedLayout(layout, load_tokenizer(folder))
    constraints = encoded.constraints(slates, enforced, params.max_tokens)
    prompts = encoded.prompts(slates)
    identity = [folder_sha256(folder), params.engine.model_dump(), params.threads]
    engine = ResumableEngine(EngineWhenAsked(params, folder), journal, identity, KEPT_TOGETHER)
    completions = engine.generate(prompts, Sampling(params.max_tokens, seed=params.seed), constraints)
    return [
        Answered(slate, prompt, one.token_ids, encoded.reader.read(one.token_ids, rule.names, layout.reasoning))
        for slate, prompt, rule, [one] in zip(slates, prompts, constraints, completions, strict=True)
    ]
