"""Orders that each model and comparator gives the same slates."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stages.shared import lambdamart
from stages.shared.answers import AnswerReader
from stages.shared.engines.base import Sampling
from stages.shared.engines.choose import EngineParams, open_engine
from stages.shared.guide import Guide, Words
from stages.shared.models import load_tokenizer
from stages.shared.prompts import THINK_END, Catalog, PromptParams, Slate, slate_prompt


@dataclass(frozen=True)
class Judged:
    """One ranker on n slates. orders int [n, K]: incoming ranks, best first.

    The row of an invalid answer is the incoming order, and `faults` says why. reasoning_tokens, answer_tokens: how many were written
    up to the end of the think block, and after it; empty for a ranker that writes nothing.
    """

    orders: np.ndarray
    faults: list[str]
    texts: list[str]
    reasoning_tokens: list[int] = field(default_factory=list)
    answer_tokens: list[int] = field(default_factory=list)

    def first(self, count: int) -> "Judged":
        """On the first `count` slates."""
        return Judged(
            self.orders[:count], self.faults[:count], self.texts[:count], self.reasoning_tokens[:count], self.answer_tokens[:count]
        )

    @property
    def valid(self) -> np.ndarray:
        return np.array([not fault for fault in self.faults])


def incoming(slates: Sequence[Slate]) -> Judged:
    orders = np.array([range(len(slate.candidates)) for slate in slates])
    return Judged(orders, [""] * len(slates), [""] * len(slates))


def by_scores(scores: np.ndarray) -> Judged:
    """scores [n, K]: higher is better, ties keep the incoming order."""
    return Judged(np.argsort(-scores, axis=1, kind="stable"), [""] * len(scores), [""] * len(scores))


def by_lambdamart(train: np.ndarray, ranks: np.ndarray, test: np.ndarray, seed: int, threads: int) -> Judged:
    """LightGBM's LambdaMART on the evidence itself (not its levels): [n, K, facts] of all training slates, then of the test slates."""
    booster = lambdamart.fit(train, ranks, seed, threads, lambdamart.LambdaMartParams())
    return by_scores(lambdamart.scores(booster, test))


def by_model(
    folder: Path,
    slates: Sequence[Slate],
    catalog: Catalog,
    options: PromptParams,
    engine: EngineParams,
    sampling: Sampling,
    threads: int,
    reasoning: bool,
    guided: bool = True,
) -> Judged:
    """Greedy answers of the language model at `folder`; `guided`: under constrained decoding (stages/shared/guide.py)."""
    tokenizer = load_tokenizer(folder)
    reader = AnswerReader(tokenizer)
    prompts = tokenizer([slate_prompt(slate, catalog, options, reasoning) for slate in slates], add_special_tokens=False)["input_ids"]
    sids = tokenizer(catalog.sids, add_special_tokens=False)["input_ids"]
    words = Words.of(tokenizer)
    guides = [Guide(words, [sids[item] for item in slate.candidates], reasoning) for slate in slates] if guided else None
    with open_engine(engine, folder, sampling.seed, threads) as opened:
        completions = [own[0].token_ids for own in opened.generate(prompts, sampling, guides)]
    orders, faults = [], []
    for slate, ids in zip(slates, completions, strict=True):
        answer = reader.read(ids, [sids[item] for item in slate.candidates], reasoning)
        orders.append(answer.order if answer.order is not None else tuple(range(len(slate.candidates))))
        faults.append(answer.fault)
    think_end = int(tokenizer.get_vocab()[THINK_END])
    thoughts = [thought_length(ids, think_end, reasoning) for ids in completions]
    answers = [len(ids) - thought for ids, thought in zip(completions, thoughts, strict=True)]
    return Judged(np.array(orders), faults, tokenizer.batch_decode(completions, skip_special_tokens=False), thoughts, answers)


def thought_length(completion: Sequence[int], think_end: int, reasoning: bool) -> int:
    """Tokens of the think block, its end included; all of them where it was never closed."""
    if not reasoning:
        return 0
    ids = list(completion)
    return ids.index(think_end) + 1 if think_end in ids else len(ids)
