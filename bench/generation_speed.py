"""How fast a finished project's model answers the test slates, and how far that is from what this machine's arithmetic allows.

    python bench/generation_speed.py FOLDER [--model sft] [--slates 400] [--repeats 3]

FOLDER: a project whose evaluation is done. Prints and writes bench/results/generation_speed.md:

- tokens a second of the engine, over the completions; passes, and tokens a pass and row;
- the multiplications and additions that the engine asked of torch (torch.utils.flop_counter), prompts included;
- how many of them a second this machine does in one large float32 matrix product, and in products of this model's own shapes.

The limit is the time that the arithmetic alone would take at the speed of the large product. What is between it and the measured time is
matrices too small to be fast, and everything that is no product: norms, softmax, the cache, masks, Python.
"""

import argparse
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from stages.shared.core.params import load_params
from stages.shared.evaluation.test_set import load_test_set, read_slate_tables
from stages.shared.generation.base import Completion, Sampling
from stages.shared.generation.transformers_engine import TransformersEngine
from stages.shared.lm.models import load_model, load_tokenizer
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.prompt_params import PromptParams

BATCH, MAX_TOKENS = 64, 160
LARGE = 2048  # side of the matrices that show what the machine can do
SECONDS = 1.0  # that a product is repeated for
RESULT = Path(__file__).resolve().parent / "results/generation_speed.md"


class CountingEngine(TransformersEngine):
    """passes of the model beyond the prompts'; rows, fed: completions, and tokens of them, that these passes held, padding included."""

    passes, rows, fed = 0, 0, 0

    def _forward(self, live: Any, guesses: Any, width: int, slots: Any, cache: Any) -> Tensor:
        self.passes, self.rows, self.fed = self.passes + 1, self.rows + len(live), self.fed + len(live) * width
        return super()._forward(live, guesses, width, slots, cache)


def product_speed(rows: int, width: int, height: int) -> float:
    """Multiplications and additions a second of [rows, width] x [width, height] in float32."""
    left, right = torch.randn(rows, width), torch.randn(width, height)
    out = torch.empty(rows, height)
    torch.mm(left, right, out=out)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        torch.mm(left, right, out=out)
        count += 1
    return 2.0 * rows * width * height * count / (time.perf_counter() - began)


def model_speed(model: PreTrainedModel, rows: int) -> float:
    """The same over all matrices of the model in turn, at the rows of a pass: weighted by what each of them takes."""
    shapes = [tuple(p.shape) for name, p in model.named_parameters() if p.dim() == 2]  # the embedding counts once: as the head
    work = [2.0 * rows * height * width for height, width in shapes]
    seconds = [part / product_speed(rows, width, height) for part, (height, width) in zip(work, shapes, strict=True)]
    return sum(work) / sum(seconds)


def timed(generate: Callable[[], list[list[Completion]]]) -> tuple[float, int]:
    began = time.perf_counter()
    completions = generate()
    return time.perf_counter() - began, sum(len(one.token_ids) for (one,) in completions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="sft")
    parser.add_argument("--slates", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    words = " ".join(["FOLDER", *sys.argv[2:]])
    torch.set_num_threads(options.threads)
    with contextlib.chdir(options.folder):
        tests = load_test_set(read_slate_tables(), options.slates)
        folder = Path(f"data/{options.model}/model")
        tokenizer, model = load_tokenizer(folder), load_model(folder).eval()
        encoded = EncodedLayout(layout_of(tests.catalog, load_params("prompt", PromptParams)), tokenizer)
    prompts, constraints = encoded.prompts(tests.slates), encoded.constraints(tests.slates, enforced=False)
    end = encoded.token_ids.end
    engine = CountingEngine(model, end if tokenizer.pad_token_id is None else tokenizer.pad_token_id, end, BATCH)
    sampling = Sampling(max_tokens=MAX_TOKENS, temperature=0.0)

    def generate() -> list[list[Completion]]:
        return engine.generate(prompts, sampling, constraints)

    with FlopCounterMode(display=False) as counter:
        timed(generate)  # also warms up
    engine.passes = engine.rows = engine.fed = 0
    seconds, tokens = zip(*(timed(generate) for _ in range(options.repeats)), strict=True)
    median, made = statistics.median(seconds), tokens[0]
    passes, rows, fed = (count / options.repeats for count in (engine.passes, engine.rows, engine.fed))
    width = max(1, round(fed / passes))  # tokens in a pass, of all its rows
    large, own = product_speed(LARGE, LARGE, LARGE), model_speed(model, width)
    work = float(counter.get_total_flops())
    lines = [
        "# How fast answers are generated, and what limits it\n",
        f"`python bench/generation_speed.py {words}`; {len(tests.slates):,} slates, {options.threads} threads on {os.cpu_count()} cores, "
        f"median of {options.repeats}\n",
        "| | |",
        "|---|---|",
        f"| tokens a second | {made / median:,.0f} |",
        f"| seconds (from, to) | {median:.2f} ({min(seconds):.2f}, {max(seconds):.2f}) |",
        f"| tokens a completion | {made / len(tests.slates):.0f} |",
        f"| passes; tokens kept a pass and row, of tokens fed | {passes:.0f}; {made / rows:.1f} of {fed / rows:.1f} |",
        f"| arithmetic, prompts included | {work / 1e9:.1f} GFLOP |",
        f"| GFLOP/s of a {LARGE} x {LARGE} product | {large / 1e9:.0f} |",
        f"| GFLOP/s of products of the model's shapes, {width} rows | {own / 1e9:.0f} |",
        f"| GFLOP/s of the engine | {work / median / 1e9:.1f} |",
        f"| tokens a second if all were as fast as the large product: the limit | {made / (work / large):,.0f} |",
        f"| tokens a second if all were as fast as products of its own shapes | {made / (work / own):,.0f} |",
    ]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
