"""What the constraint of the layout `chat` costs: seconds spent on masks, of all seconds of decoding, with SmolLM2-135M-Instruct.

    python bench/constraint_cost.py FOLDER [--slates 32] [--think 48] [--threads 2]

FOLDER: a project after `gr2 run retrieve tokenize`; its test slates are asked, titles and evidence in the prompt. The model is as it comes,
the semantic IDs new to it: what it says is nonsense, which is the hardest case, for nothing that the constraint guesses comes true.

Two runs: one that ends after the first token, which is what reading the prompts takes, and one to the end; decoding is the difference.
Prints and writes bench/results/constraint_cost.md.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stages.shared.core.outputs import DATA
from stages.shared.core.schemas import SIDS, read_table
from stages.shared.evaluation.test_set import load_test_set, read_slate_tables
from stages.shared.generation import transformers_engine
from stages.shared.generation.base import Sampling
from stages.shared.generation.transformers_engine import TransformersEngine
from stages.shared.lm.models import extend_vocabulary, load_model, load_tokenizer, resize_embeddings
from stages.shared.lm.packaged import packaged_model
from stages.shared.slates.json_constraint import JsonState
from stages.shared.slates.layouts.chat import ChatLayout
from stages.shared.slates.layouts.dialogue import end_of_turn
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.prompt_params import PromptParams

RESULT = Path(__file__).resolve().parent / "results/constraint_cost.md"
MODEL = "smollm2-135m"


class Clock:
    """Seconds inside the functions that it was put around; calls within calls count once."""

    def __init__(self) -> None:
        self.seconds, self.depth = 0.0, 0

    def around(self, owner: Any, name: str) -> None:
        plain: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **named: Any) -> Any:
            self.depth += 1
            began = time.perf_counter()
            try:
                return plain(*args, **named)
            finally:
                self.depth -= 1
                self.seconds += 0.0 if self.depth else time.perf_counter() - began

        setattr(owner, name, timed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slates", type=int, default=32)
    parser.add_argument("--think", type=int, default=48, help="tokens of thought")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = packaged_model(MODEL)
    tokenizer, model = load_tokenizer(folder), load_model(folder).eval()
    with contextlib.chdir(options.folder):
        tests = load_test_set(read_slate_tables(), options.slates)
        codes = read_table(DATA / "tokenize/sids.parquet", SIDS)["codes"]
    extend_vocabulary(tokenizer, len(codes[0]), int(codes.explode().max()) + 1, end_of_turn(tokenizer))  # type: ignore[arg-type]
    resize_embeddings(model, tokenizer)
    prompt = PromptParams(layout="chat", titles=True, think_tokens=options.think, explanation_tokens=32)
    encoded = EncodedLayout(ChatLayout(tests.catalog, prompt), tokenizer)
    prompts = encoded.prompts(tests.slates)
    engine = TransformersEngine(model, int(tokenizer.pad_token_id), int(tokenizer.eos_token_id), len(prompts))

    constraints = encoded.constraints(tests.slates, enforced=True)

    def run(tokens: int) -> tuple[float, list[list[int]]]:
        """Seconds, and completions of at most so many tokens."""
        clock.seconds, began = 0.0, time.perf_counter()
        completions = [one.token_ids for (one,) in engine.generate(prompts, Sampling(tokens), constraints)]
        return time.perf_counter() - began, completions

    clock = Clock()
    reading, _ = run(1)  # also builds the grammar's tables, once for a vocabulary
    for name in ("mask", "advance", "draft", "copy"):
        clock.around(JsonState, name)
    clock.around(transformers_engine, "apply_masks")
    seconds, completions = run(options.think + 32 + 12 * len(tests.slates[0].candidates))
    read = [encoded.reader.read(ids, constraint.names, True) for ids, constraint in zip(completions, constraints, strict=True)]
    valid, tokens, decoding = sum(not answer.fault for answer in read), sum(map(len, completions)), seconds - reading
    lines = [
        "# What the constraint costs\n",
        f"`python bench/constraint_cost.py {' '.join(['FOLDER', *sys.argv[2:]])}`: {len(prompts)} slates, {options.threads} threads, "
        f"prompts of {sum(map(len, prompts)) / len(prompts):.0f} tokens, a vocabulary of {len(tokenizer):,}\n",
        "| reading the prompts | decoding | of it masks and drafts | share | tokens | tokens a second | valid answers |",
        "|---|---|---|---|---|---|---|",
        f"| {reading:.1f} s | {decoding:.1f} s | {clock.seconds:.2f} s | {clock.seconds / decoding:.2%} | {tokens:,} | "
        f"{tokens / decoding:.0f} | {valid} of {len(read)} |",
    ]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
