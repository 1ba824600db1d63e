"""How the models are asked: every one greedily on all slates, and what else is measured of some, while each is open."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from stages.evaluate.params import EvaluateParams
from stages.evaluate.shuffled_slates import shuffles
from stages.shared.evaluation.outputs_table import FREE, GREEDY, RESERVED, SHUFFLED
from stages.shared.evaluation.outputs_table import REPEATED as REPEATED_KIND
from stages.shared.evaluation.rankers import PRIMARY_MODEL, REFERENCE_MODEL
from stages.shared.generation.base import Sampling
from stages.shared.generation.choose import side_by_side
from stages.shared.generation.invocations import Invocations
from stages.shared.generation.reranking.language_model import open_language_model
from stages.shared.slates.layouts.choose import without_reasoning
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.slates.reranking.windows import Windows
from stages.shared.slates.slate import Slate, permuted

REPEATED = (REFERENCE_MODEL, PRIMARY_MODEL)
LOADING = Lock()  # transformers switches global state while it loads a model


@dataclass
class Answers:
    """By model. greedy: on all slates; reserved: on those kept for promotion; free: on the first free_slates, without the constraint;
    repeated: one Rankings a repeat, on `repeat_rows`. shuffled: PRIMARY_MODEL's, on the first shuffled_slates: the order [n, K] in which
    each was shown, and the answers, whose orders are places in it."""

    repeat_rows: list[int]
    greedy: dict[str, Rankings] = field(default_factory=dict)
    reserved: dict[str, Rankings] = field(default_factory=dict)
    free: dict[str, Rankings] = field(default_factory=dict)
    repeated: dict[str, list[Rankings]] = field(default_factory=dict)
    prompt_cuts: dict[str, dict[str, int]] = field(default_factory=dict)
    shuffled: tuple[NDArray[np.int_], Rankings] | None = None
    invocations: Invocations = field(default_factory=lambda: Invocations(False))


def ask_models(
    slates: list[Slate],
    layout: Layout,
    params: EvaluateParams,
    folders: Mapping[str, Path],
    at_once: Collection[str] = (),
    reserved: Sequence[Slate] = (),
) -> Answers:
    """Models are asked side by side, with a thread each, where they run on this CPU: small ones gain nothing from a second thread.

    folders: by name, in the order of the answers; at_once: names of those that are asked without reasoning, whatever the layout says;
    reserved: the slates kept for promotion.
    """
    workers = side_by_side(params.engine, params.threads, len(folders))
    repeat_rows = evenly_spaced(len(slates), params.repeat_slates) if params.repeats else []
    answers = Answers(repeat_rows, invocations=Invocations(params.keep_invocations))

    def ask(name: str) -> None:
        own_layout = without_reasoning(layout) if name in at_once else layout
        _ask(answers, slates, reserved, own_layout, params, max(1, params.threads // workers), name, folders[name])

    if workers == 1:
        for name in folders:
            ask(name)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(ask, sorted(folders, key=lambda name: name not in REPEATED)))  # those with most to answer first
    # Threads end in any order; the outputs must not depend on it.
    answers.greedy = {name: answers.greedy[name] for name in folders}
    answers.reserved = {name: answers.reserved[name] for name in folders if name in answers.reserved}
    answers.prompt_cuts = {name: answers.prompt_cuts[name] for name in folders if name in answers.prompt_cuts}
    answers.free = {name: answers.free[name] for name in folders if name in answers.free}
    answers.repeated = {name: answers.repeated[name] for name in REPEATED if name in answers.repeated}
    answers.invocations.sort(list(folders))
    return answers


def _ask(
    answers: Answers,
    slates: list[Slate],
    reserved: Sequence[Slate],
    layout: Layout,
    params: EvaluateParams,
    threads: int,
    name: str,
    folder: Path,
) -> None:
    """Puts all that is asked of one model into `answers`."""
    torch.set_num_threads(threads)  # of this Python thread
    greedily = Sampling(params.max_tokens, seed=params.seed)
    sampled = Sampling(params.max_tokens, params.repeat_temperature, samples=params.repeats, seed=params.seed)
    to_repeat = [slates[row] for row in answers.repeat_rows]
    to_shuffle = slates[: params.shuffled_slates]
    with ExitStack() as stack:
        with LOADING:
            windows = Windows.of(layout.options.window, params.window_step, params.passes)
            opened = open_language_model(folder, layout, params.engine, params.seed, threads, name, answers.invocations, windows)
            model = stack.enter_context(opened)
        [answers.greedy[name]] = model.answers(slates, greedily, params.constrained, GREEDY)
        if reserved:
            [answers.reserved[name]] = model.answers(reserved, greedily, params.constrained, RESERVED)
        if params.constrained and params.free_slates:
            [answers.free[name]] = model.answers(slates[: params.free_slates], greedily, constrained=False, kind=FREE)
        if to_repeat and name in REPEATED:
            answers.repeated[name] = model.answers(to_repeat, sampled, params.constrained, REPEATED_KIND)
        if to_shuffle and name == PRIMARY_MODEL:
            orders = shuffles(to_shuffle, params.seed)
            shown = [permuted(slate, order[: len(slate.candidates)]) for slate, order in zip(to_shuffle, orders.tolist(), strict=True)]
            [rankings] = model.answers(shown, greedily, params.constrained, SHUFFLED)
            answers.shuffled = orders, rankings
        if layout.dialogue:
            answers.prompt_cuts[name] = dict(model.encoded.cuts)


def evenly_spaced(length: int, count: int) -> list[int]:
    """At most `count` rows of `length`, the first and the last among them: slates are sorted by user, the first ones are of few."""
    return sorted(set(np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()))
