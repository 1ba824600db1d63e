"""How much of a prompt's keys and values an earlier prompt has left in the cache, candidates first and history first, and what that saves.

    python bench/prefix_sharing.py FOLDER [--model smollm2-135m] [--slates 0] [--timed-slates 12] [--orders 4] [--answers 8]

FOLDER: a project after `gr2 run retrieve tokenize`. Its test slates are asked in the layout `chat`, otherwise as the section `prompt` of
its params.yaml says, with the packaged model as it comes (seconds depend on sizes, not on what is answered). Three ways of asking:

- one answer a slate, in the slates' order, as `evaluate` asks;
- each slate in several shuffled orders, one after the other, as the chance audit, `traces.verify_shuffles` and shuffled_slates ask;
- several answers to each prompt, as `rl` and rejection sampling ask.

Tokens are counted as vLLM shares them: whole blocks of 16 from the beginning, never a prompt's last token. Seconds are vLLM's, on the first
slates, with its prefix cache read and not read, in turns and after a reset; those of the processor do not grow with what else the machine
does. It also says how many tokens it found in the cache. Its blocks are larger on CPUs, so for the timed slates both are in its blocks.

Prints and writes bench/results/prefix_sharing.md.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.shared.core.outputs import DATA
from stages.shared.core.params import load_params
from stages.shared.core.schemas import SIDS, read_table
from stages.shared.evaluation.test_set import load_test_set, read_slate_tables
from stages.shared.generation.vllm_engine import VllmEngine
from stages.shared.lm.models import extend_vocabulary, load_model, load_tokenizer, resize_embeddings, save_model
from stages.shared.lm.packaged import packaged_model
from stages.shared.slates.layouts.chat import ChatLayout
from stages.shared.slates.layouts.dialogue import end_of_turn
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.slate import Slate, permuted

RESULT = Path(__file__).resolve().parent / "results/prefix_sharing.md"
BLOCK = 16  # tokens, of vLLM
Prompts = list[list[int]]


def shared_tokens(prompts: Sequence[Sequence[int]], block: int = BLOCK) -> int:
    """Tokens of whole blocks with which an earlier prompt begins, too. Every prompt's last token is read anew, to say what follows."""
    known: dict[tuple[int, tuple[int, ...]], int] = {}  # (the prefix before, its next block) -> the prefix with it
    shared = 0
    for prompt in prompts:
        prefix, unbroken = 0, True
        for start in range(0, len(prompt) - block + 1, block):
            key = (prefix, tuple(prompt[start : start + block]))
            unbroken = unbroken and key in known and start + block < len(prompt)
            shared += block * unbroken
            prefix = known.setdefault(key, len(known) + 1)
    return shared


def asked(encoded: EncodedLayout, slates: Sequence[Slate], orders: int, answers: int, seed: int = 7) -> dict[str, Prompts]:
    """Way of asking -> prompts, in the order in which they are asked."""
    rng = np.random.default_rng(seed)
    shuffled = [permuted(slate, rng.permutation(len(slate.candidates)).tolist()) for slate in slates for _ in range(orders)]
    plain = encoded.prompts(slates)
    return {
        "one answer a slate": plain,
        f"{orders} shuffled orders of a slate": encoded.prompts(shuffled),
        f"{answers} answers to a prompt": [prompt for prompt in plain for _ in range(answers)],
    }


def timed(engine: VllmEngine, prompts: Prompts, tokens: int, reads_cache: bool) -> tuple[float, float, int]:
    """Seconds, seconds of the processor, and the tokens that were found in the cache."""
    from vllm import SamplingParams, TokensPrompt

    engine.llm.reset_prefix_cache()
    params = SamplingParams(
        max_tokens=tokens, temperature=0.0, ignore_eos=True, detokenize=False, skip_reading_prefix_cache=not reads_cache
    )
    began, worked = time.perf_counter(), time.process_time()
    outputs = engine.llm.generate([TokensPrompt(prompt_token_ids=prompt) for prompt in prompts], params, use_tqdm=False)
    return time.perf_counter() - began, time.process_time() - worked, sum(output.num_cached_tokens or 0 for output in outputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="smollm2-135m", help="of infra/models")
    parser.add_argument("--slates", type=int, default=0, help="whose prompts are counted; 0 = all")
    parser.add_argument("--timed-slates", type=int, default=12)
    parser.add_argument("--orders", type=int, default=4)
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=16, help="of each answer")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    source = packaged_model(options.model)
    tokenizer, model = load_tokenizer(source), load_model(source)
    with contextlib.chdir(options.folder):
        tests = load_test_set(read_slate_tables(), options.slates)
        codes = read_table(DATA / "tokenize/sids.parquet", SIDS)["codes"]
        prompt = load_params("prompt", PromptParams).model_copy(update={"layout": "chat"})
    extend_vocabulary(tokenizer, len(codes[0]), int(codes.explode().max()) + 1, end_of_turn(tokenizer))  # type: ignore[arg-type]
    resize_embeddings(model, tokenizer)
    layouts = {
        name: EncodedLayout(ChatLayout(tests.catalog, prompt.model_copy(update={"candidates_first": first})), tokenizer)
        for name, first in (("history first", False), ("candidates first", True))
    }
    counted = {name: asked(one, tests.slates, options.orders, options.answers) for name, one in layouts.items()}
    few = {name: asked(one, tests.slates[: options.timed_slates], options.orders, options.answers) for name, one in layouts.items()}
    longest = max(len(prompt) for ways in few.values() for prompts in ways.values() for prompt in prompts)
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, tokenizer, Path(folder))
        engine = VllmEngine(
            Path(folder), int(tokenizer.eos_token_id), longest + options.tokens, kv_cache_gb=2.0, batch_size=16, threads=options.threads
        )
    rows, block = [], engine.llm.llm_engine.vllm_config.cache_config.block_size
    timed(engine, few["history first"]["one answer a slate"], options.tokens, True)  # warms up
    for way in counted["history first"]:
        for name in layouts:
            prompts, measured = counted[name][way], few[name][way]
            # In turns, so that whatever else the machine does falls on both.
            runs = [[timed(engine, measured, options.tokens, reads) for reads in (True, False)] for _ in range(options.repeats)]
            read, unread, read_cpu, unread_cpu = (statistics.median(run[side][kind] for run in runs) for kind in (0, 1) for side in (0, 1))
            found, none = (runs[0][side][2] for side in (0, 1))
            assert none == 0
            total = sum(map(len, measured))
            rows.append(
                f"| {way} | {name} | {sum(map(len, prompts)) / len(prompts):.0f} | {shared_tokens(prompts) / sum(map(len, prompts)):.1%} | "
                f"{shared_tokens(measured, block) / total:.1%} | {found / total:.1%} | {read:.1f}, {unread:.1f} | "
                f"{read_cpu:.1f}, {unread_cpu:.1f} | {unread_cpu / read_cpu:.2f} |"
            )
            print(rows[-1], flush=True)
    engine.close()
    lines = [
        "# What prompts share of the key-value cache, and what it saves\n",
        f"`python bench/prefix_sharing.py {' '.join(['FOLDER', *sys.argv[2:]])}`: {len(tests.slates)} test slates of "
        f"{len(tests.slates[0].candidates)}, of them {options.timed_slates} timed; {options.model}, {options.tokens} tokens an answer, "
        f"{options.threads} threads on {os.cpu_count()} cores, median of {options.repeats}\n",
        f"| asked | prompt | tokens | shared, blocks of {BLOCK} | timed slates, blocks of {block} | found by vLLM "
        "| seconds, cache read and not | of the processor | their ratio |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
    ]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
