"""A finished run as a reranker: histories and candidates in, orders with scores and reasons out; whatever fails, the incoming order."""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stages.evaluate.params import EvaluateParams
from stages.retrieve.params import RetrieveParams
from stages.serve.catalogue import IdCatalogue
from stages.serve.modes import ADAPTIVE_MARGIN, MODES, Mode
from stages.serve.one_pass import OnePass, open_one_pass
from stages.serve.requests import (
    ENGINE,
    INVALID_ANSWER,
    NO_HISTORY,
    NO_SCORES,
    ONE_PASS,
    REASONING,
    TIME_BUDGET,
    UNKNOWN_ITEMS,
    UNKNOWN_USER,
    RankRequest,
    RankResult,
    fallback,
    falling,
    places_of,
    spread,
)
from stages.serve.slate_maker import SlateMaker
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA
from stages.shared.core.params import load_params
from stages.shared.core.progress import note
from stages.shared.core.schemas import ITEMS, SIDS, read_table
from stages.shared.evaluation.rankers import MODELS, PRIMARY_MODEL
from stages.shared.generation.base import Sampling
from stages.shared.generation.choose import side_by_side
from stages.shared.generation.reranking.language_model import LanguageModel, open_language_model
from stages.shared.generation.transformers_engine import TransformersEngine
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.slates.layouts.dialogue import think_marks
from stages.shared.slates.layouts.domain_rules import with_mined_rules
from stages.shared.slates.layouts.marks import THINK_END, letters
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.slates.reranking.windows import Windows, rank_by_windows
from stages.shared.slates.slate import Catalog, Slate
from stages.shared.slates.windows import in_windows

MODEL = MODELS[PRIMARY_MODEL]
log = logging.getLogger("gr2.serve")


class OutOfTimeError(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True)
class Reranker:
    """model: asked as `evaluate` asks it; or, in one pass, for the likeliest first candidate alone.

    first: of mode adaptive, asked before `model`. Where the probability of its best item is `margin` above that of the next one, its order
    is the answer, and the model does not think.
    """

    catalogue: IdCatalogue
    maker: SlateMaker
    model: LanguageModel | OnePass
    params: EvaluateParams
    windows: Windows
    threads: int
    name: str
    mode: Mode = field(default="reasoning")
    first: OnePass | None = None
    margin: float = ADAPTIVE_MARGIN

    def rank(self, requests: Sequence[RankRequest], seconds: float = math.inf) -> list[RankResult]:
        """One result a request. Nothing is raised for what a model or an engine does. seconds: after which nobody waits any more: whoever
        still has windows to come then falls back."""
        torch.set_num_threads(self.threads)  # of this Python thread
        end = time.monotonic() + seconds
        results: dict[int, RankResult] = {}
        groups: dict[int, list[int]] = defaultdict(list)
        for row, request in enumerate(requests):
            if (result := self.unasked(request)) is not None:
                results[row] = result
            else:
                groups[self.maker.size(request)].append(row)
        for _, rows in sorted(groups.items()):  # the short slates do not wait for the long ones
            results |= zip(rows, self._asked([requests[row] for row in rows], end), strict=True)
        return [results[row] for row in range(len(requests))]

    def unasked(self, request: RankRequest) -> RankResult | None:
        """The result of a request that no model needs to see, or could say anything about."""
        known, count = list(places_of(request.items)), len(request.items)
        if not known:
            return fallback(count, UNKNOWN_ITEMS)
        if not request.history:
            return fallback(count, NO_HISTORY if request.known_user else UNKNOWN_USER)
        if request.scores is None and self.maker.scorer is None:
            return fallback(count, NO_SCORES)
        return RankResult(spread(request.items, known), falling(count)) if len(known) == 1 else None

    def _asked(self, requests: Sequence[RankRequest], end: float) -> list[RankResult]:
        try:
            return self._ranked(requests, end)
        except OutOfTimeError:
            return [fallback(len(request.items), TIME_BUDGET) for request in requests]
        except Exception as error:  # an engine raises whatever its library does; the incoming order is better than no order
            if len(requests) > 1:  # one of them may be why
                return [result for request in requests for result in self._asked([request], end)]
            log.error("engine: %s: %s", type(error).__name__, error)
            return [fallback(len(requests[0].items), ENGINE)]

    def _ranked(self, requests: Sequence[RankRequest], end: float) -> list[RankResult]:
        slates = self.maker.slates(requests)
        whole = not in_windows(slates, self.windows.size)
        if self.first is None or not whole:  # of windows no single margin says how sure an order is
            return self._by_model(requests, slates, whole, end)
        rankings, scores_NK = self.first.rank(slates)
        results = {
            row: self._result(request, slates[row], rankings, row, scores_NK[row].tolist(), whole, ONE_PASS)
            for row, request in enumerate(requests)
            if margin_of(scores_NK[row, : len(places_of(request.items))]) >= self.margin
        }
        if unsure := [row for row in range(len(requests)) if row not in results]:
            thought = self._by_model([requests[row] for row in unsure], [slates[row] for row in unsure], whole, end)
            results |= zip(unsure, thought, strict=True)
        return [results[row] for row in range(len(requests))]

    def _by_model(self, requests: Sequence[RankRequest], slates: list[Slate], whole: bool, end: float) -> list[RankResult]:
        scores: Sequence[Sequence[float]] = []
        way = REASONING if isinstance(self.model, LanguageModel) else ONE_PASS
        if not whole:
            rankings = rank_by_windows(slates, partial(self._window, end=end), self.windows)
        elif isinstance(self.model, OnePass):
            rankings, scores_NK = self.model.rank(slates)
            scores = scores_NK.tolist()
        else:
            [rankings] = self._window(slates, end)
        return [
            self._result(request, slate, rankings, row, scores[row] if scores else None, whole, way)
            for row, (request, slate) in enumerate(zip(requests, slates, strict=True))
        ]

    def _window(self, slates: list[Slate], end: float) -> list[Rankings]:
        """Answers to slates of no more candidates than a prompt shows. OutOfTimeError past `end`."""
        if time.monotonic() >= end:
            raise OutOfTimeError
        if isinstance(self.model, OnePass):
            return [self.model.rank(slates)[0]]
        return self.model.answers(slates, Sampling(self.params.max_tokens, seed=self.params.seed), self.params.constrained)

    def _result(
        self, request: RankRequest, slate: Slate, rankings: Rankings, row: int, scores: Sequence[float] | None, whole: bool, way: str
    ) -> RankResult:
        """scores: one a candidate of the slate; None: the order is all there is."""
        text, fault = rankings.texts[row], rankings.faults[row]
        tokens = sum(counts[row] for counts in (rankings.reasoning_tokens, rankings.answer_tokens) if counts)
        reasoning = self._reasoning(text)
        if fault:
            return fallback(len(request.items), INVALID_ANSWER, fault, reasoning, tokens, way)
        ranks = rankings.orders[row].tolist()
        order = spread(request.items, [slate.candidates[rank] for rank in ranks])
        if scores is None:
            return RankResult(order, falling(len(order)), reasoning, self._relevances(request, slate, text, whole), tokens=tokens, way=way)
        of_item = dict(zip(slate.candidates, scores, strict=True))
        total = sum(of_item[item] for item in places_of(request.items))  # without those that filled the slate
        items = [request.items[place] for place in order]
        return RankResult(order, tuple(0.0 if item is None else float(of_item[item] / total) for item in items), tokens=tokens, way=way)

    def _reasoning(self, text: str) -> str:
        if not isinstance(self.model, LanguageModel) or not self.model.encoded.layout.reasoning:
            return ""
        encoded = self.model.encoded
        mark = think_marks(encoded.tokenizer)[1] if encoded.layout.dialogue else THINK_END
        return text.partition(mark)[0].strip()

    def _relevances(self, request: RankRequest, slate: Slate, text: str, whole: bool) -> dict[int, int]:
        """Of every place whose candidate the trace gave one. Letters mean other candidates in every window: then there are none."""
        if not isinstance(self.model, LanguageModel) or not self.model.encoded.layout.reasoning or not whole:
            return {}
        names = [letter.strip() for letter in letters(len(slate.candidates))]
        said, places = self.model.encoded.layout.claims(text).relevances, places_of(request.items)
        given = [(item, said[name]) for name, item in zip(names, slate.candidates, strict=True) if name in said]
        return {place: level for item, level in given for place in places.get(item, ())}


@contextmanager
def open_reranker(
    folder: Path = MODEL,
    mode: str = "reasoning",
    threads: int | None = None,
    one_pass: Path | None = None,
    margin: float = ADAPTIVE_MARGIN,
) -> Iterator[Reranker]:
    """The model at `folder` with the tables and params.yaml of the run in the current directory.

    threads: of torch; None: as many as `evaluate` gave the model, so that sums round as there. one_pass: of mode adaptive, the model that
    is asked first; None: the same. StageError for a mode that there is not.
    """
    if mode not in MODES:
        raise StageError(f"mode {mode}: one of {', '.join(MODES)} is expected")
    params, retrieve = load_params("evaluate", EvaluateParams), load_params("retrieve", RetrieveParams)
    catalogue = IdCatalogue.read()
    sids = read_table(DATA / "tokenize/sids.parquet", SIDS)
    catalog = Catalog.from_tables(sids, read_table(DATA / "ingest/items.parquet", ITEMS))
    layout = layout_of(catalog, with_mined_rules(load_params("prompt", PromptParams)))
    size = layout.options.window or retrieve.candidates
    windows = Windows.of(size, params.window_step, params.passes)
    count = threads or max(1, params.threads // side_by_side(params.engine, params.threads, len(MODELS)))
    torch.set_num_threads(count)
    maker = SlateMaker.read(retrieve, catalogue.log)
    name, quick = folder.as_posix(), one_pass or folder
    if mode != "reasoning" and layout.reasoning and quick == folder:
        note(f"{folder} learnt to reason first (prompt.reasoning): in one pass it ranks badly (docs/serving.md)")
    if mode == "one-pass":
        yield Reranker(catalogue, maker, open_one_pass(folder, layout, params.engine), params, windows, count, name, "one-pass")
        return
    if mode == "adaptive" and not layout.reasoning:
        raise StageError("mode adaptive: the model of a run with prompt.reasoning false never thinks; use --mode one-pass")
    with open_language_model(folder, layout, params.engine, params.seed, count, windows=windows) as model:
        first = None
        if mode == "adaptive":
            engine = model.engine
            shared = engine.model if isinstance(engine, TransformersEngine) and quick == folder else None
            first = open_one_pass(quick, layout, params.engine, shared)
        yield Reranker(catalogue, maker, model, params, windows, count, name, "adaptive" if first else "reasoning", first, margin)


def margin_of(scores_K: NDArray[np.float64]) -> float:
    """How much likelier than the next one the best candidate is, of those asked about alone: 0 to 1."""
    best, following = np.sort(scores_K)[::-1][:2] / scores_K.sum()
    return float(best - following)
