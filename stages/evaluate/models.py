"""Who is asked, and how: every model greedily on all slates, and what else is measured of some, while each is open."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

import numpy as np
import torch

from stages.evaluate.language_model import open_language_model
from stages.evaluate.params import EvaluateParams
from stages.evaluate.position_bias import PositionBias, position_bias
from stages.shared.core.outputs import DATA
from stages.shared.generation.base import Sampling
from stages.shared.generation.choose import on_cpu
from stages.shared.slates.prompts import Catalog, PromptParams, Slate
from stages.shared.slates.rankings import Judged

MODELS = {  # name -> its folder, and whether it reasons
    "sft_no_reasoning": (DATA / "sft/no_reasoning", False),
    "sft": (DATA / "sft/model", True),
    "rl": (DATA / "rl/model", True),
    "quantized": (DATA / "quantize/model", True),
}
CONTRASTS = (
    ("rl", "sft"),
    ("rl", "sft_no_reasoning"),
    ("sft", "sft_no_reasoning"),
    ("rl", "lambdamart"),
    ("rl", "fusion"),
    ("fusion", "lambdamart"),
    ("quantized", "rl"),
)
SUBJECT, REFERENCE = "rl", "sft"  # the model the report is about, and the one its lengths are compared with
REPEATED = (REFERENCE, SUBJECT)
LOADING = Lock()  # transformers switches global state while it loads a model


@dataclass
class Answers:
    """By model. greedy: on all slates; free: on the first free_slates, without the constraint; repeated: one Judged a repeat, on
    `repeat_rows`; bias: SUBJECT's, where slates were shuffled."""

    repeat_rows: list[int]
    greedy: dict[str, Judged] = field(default_factory=dict)
    free: dict[str, Judged] = field(default_factory=dict)
    repeated: dict[str, list[Judged]] = field(default_factory=dict)
    bias: PositionBias | None = None


def ask_models(slates: list[Slate], catalog: Catalog, options: PromptParams, params: EvaluateParams) -> Answers:
    """Models are asked side by side, with a thread each, where they run on this CPU: small ones gain nothing from a second thread."""
    workers = min(params.threads, len(MODELS)) if on_cpu(params.engine) else 1
    found = Answers(evenly_spaced(len(slates), params.repeat_slates) if params.repeats else [])
    ask = partial(_ask, found, slates, catalog, options, params, max(1, params.threads // workers))
    if workers == 1:
        for name in MODELS:
            ask(name)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(ask, sorted(MODELS, key=lambda name: name not in REPEATED)))  # those with most to answer first
    found.greedy = {name: found.greedy[name] for name in MODELS}
    found.free = {name: found.free[name] for name in MODELS if name in found.free}
    found.repeated = {name: found.repeated[name] for name in REPEATED if name in found.repeated}
    return found


def _ask(
    found: Answers, slates: list[Slate], catalog: Catalog, options: PromptParams, params: EvaluateParams, threads: int, name: str
) -> None:
    """Puts all that is asked of one model into `found`."""
    torch.set_num_threads(threads)  # of this Python thread
    greedily = Sampling(params.max_tokens, seed=params.seed)
    warmly = Sampling(params.max_tokens, params.repeat_temperature, samples=params.repeats, seed=params.seed)
    again = [slates[row] for row in found.repeat_rows]
    shuffled = slates[: params.shuffled_slates]
    folder, reasoning = MODELS[name]
    with ExitStack() as stack:
        with LOADING:
            model = stack.enter_context(open_language_model(folder, catalog, options, params.engine, reasoning, params.seed, threads))
        [found.greedy[name]] = model.answers(slates, greedily, params.constrained)
        if params.constrained and params.free_slates:
            [found.free[name]] = model.answers(slates[: params.free_slates], greedily, constrained=False)
        if again and name in REPEATED:
            found.repeated[name] = model.answers(again, warmly, params.constrained)
        if shuffled and name == SUBJECT:
            as_is = found.greedy[name].at(range(len(shuffled)))
            found.bias = position_bias(lambda asked: model.answers(asked, greedily, params.constrained)[0], shuffled, params.seed, 1, as_is)


def evenly_spaced(length: int, count: int) -> list[int]:
    """At most `count` places of `length`, the first and the last among them: slates stand by user, so the first ones are of few users."""
    return sorted(set(np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()))
