"""What quantizing a fine-tuned model costs: every method at several widths beside each other, on prompts held out from training.

    python bench/quantization.py PROJECT [--model data/rl/model] [--base data/midtrain/model] [--schemes int4 int3] [--slates 300]

PROJECT: a folder whose evaluation is done. Held out are its test slates, each with the answer that the full model gave to it in the
evaluation (`--answers`); quantization is calibrated on training traces, as the stage does it. For each scheme and method one row:

- size of the weights, as a share of bfloat16's;
- perplexity of the answers' tokens, and the KL of the next-token distributions, full to quantized: of each prompt the mean over its tokens,
  then the mean over prompts with its 95 % interval (paired bootstrap over users);
- with --slates: NDCG@5 of free answers minus the full model's on the same slates with its interval, slates whose target lost and gained the
  first place, share of equal orders, seconds to load (with the first pass, which unpacks), tokens a second.

Arms are `SCHEME:METHOD`; without --arms all methods at all schemes. The table is printed, and written to --result after each arm.
"""

import argparse
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.evaluate.params import EvaluateParams
from stages.quantize.calibration import calibration_examples
from stages.quantize.checkpoint import CompressedLayout, save_compressed
from stages.quantize.params import QuantizeParams
from stages.quantize.quantize import BFLOAT16_BYTES, TRACES, quantize_model
from stages.quantize.schemes import grid_of
from stages.report.diagnostics.quantization_gate import quantization_gate
from stages.shared.core.errors import StageError
from stages.shared.core.params import load_params
from stages.shared.core.run import set_seed, set_threads
from stages.shared.evaluation.outputs_table import OUTPUTS, answers_of, read_greedy
from stages.shared.evaluation.test_set import TestSet, load_test_set, read_slate_tables
from stages.shared.generation.base import Sampling
from stages.shared.generation.params import EngineParams
from stages.shared.generation.reranking.language_model import open_language_model
from stages.shared.lm.models import load_model, load_tokenizer
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.slates.layouts.domain_rules import with_mined_rules
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.slates.reranking.windows import Windows
from stages.shared.stats.bootstrap import Bootstrap, paired_interval

METHODS = ("rtn", "gptq", "awq", "quantlrm")
RESAMPLES, SEED, CHUNK = 2000, 7, 128
FULL = "full"


@dataclass(frozen=True)
class HeldOutText:
    """A prompt and what follows it, as ids; user: whose slate it is."""

    ids: list[int]
    prompt: int
    user: int


@dataclass(frozen=True)
class FreeAnswers:
    rankings: Rankings
    load_seconds: float
    tokens_a_second: float


def held_out(test_set: TestSet, layout: Layout, tokenizer: PreTrainedTokenizerBase, answers: str, count: int) -> list[HeldOutText]:
    """`count` test slates, evenly spaced by user, with the recorded answers of the model `answers`."""
    table = answers_of(read_greedy(OUTPUTS, ["slate", "model", "text"]), OUTPUTS, answers)
    text_of = dict(table.select("slate", "text").iter_rows())
    recorded = [row for row, slate in enumerate(test_set.slates) if text_of.get(slate.slate)]
    rows = [recorded[int(place)] for place in np.linspace(0, len(recorded) - 1, min(count, len(recorded))).round()]
    slates = [test_set.slates[row] for row in rows]
    prompts = EncodedLayout(layout, tokenizer).prompts(slates)
    said = tokenizer([text_of[slate.slate] for slate in slates], add_special_tokens=False)["input_ids"]
    return [HeldOutText([*prompt, *answer], len(prompt), slate.user) for prompt, answer, slate in zip(prompts, said, slates, strict=True)]


@torch.no_grad()
def last_hidden(model: PreTrainedModel, texts: list[HeldOutText]) -> list[Tensor]:
    """Of each text [n, D], what the head reads where a token of the answer comes next."""
    return [
        model.get_decoder()(input_ids=torch.tensor([text.ids]), use_cache=False).last_hidden_state[0, text.prompt - 1 : -1]
        for text in texts
    ]


@torch.no_grad()
def compare(
    full_head: torch.nn.Module, full: list[Tensor], head: torch.nn.Module, other: list[Tensor], texts: list[HeldOutText]
) -> tuple[np.ndarray, np.ndarray]:
    """Of each text the means over its answer's tokens: -log p of the other model, and KL(full || other) in nats."""
    losses, divergences = [], []
    for text, full_nD, other_nD in zip(texts, full, other, strict=True):
        targets, loss, kl = torch.tensor(text.ids[text.prompt :]), 0.0, 0.0
        for start in range(0, len(full_nD), CHUNK):
            part = slice(start, start + CHUNK)
            p, q = (torch.log_softmax(one(rows[part]).double(), -1) for one, rows in ((full_head, full_nD), (head, other_nD)))
            loss += float(F.nll_loss(q, targets[part], reduction="sum"))
            kl += float((p.exp() * (p - q)).sum())
        losses.append(loss / len(targets))
        divergences.append(max(kl / len(targets), 0.0))
    return np.array(losses), np.array(divergences)


def ask(folder: Path, test_set: TestSet, layout: Layout, slates: int, evaluate: EvaluateParams, threads: int) -> FreeAnswers:
    """Free greedy answers to the first slates, through transformers."""
    params = EngineParams(batch_size=64, device="cpu")
    begin = time.perf_counter()
    load_model(folder)(input_ids=torch.tensor([[1]]))
    loaded = time.perf_counter() - begin
    windows = Windows.of(layout.options.window, evaluate.window_step, evaluate.passes)
    with open_language_model(folder, layout, params, SEED, threads, windows=windows) as model:
        begin = time.perf_counter()
        [rankings] = model.answers(test_set.slates[:slates], Sampling(evaluate.max_tokens, seed=SEED), constrained=False)
        seconds = time.perf_counter() - begin
    return FreeAnswers(rankings, loaded, (sum(rankings.reasoning_tokens) + sum(rankings.answer_tokens)) / seconds)


def with_interval(values: np.ndarray, users: np.ndarray, form: str) -> str:
    low, high = paired_interval(values, Bootstrap(users, RESAMPLES, SEED))
    return f"{values.mean():{form}} [{low:{form}}, {high:{form}}]"


def perplexity(losses: np.ndarray, users: np.ndarray) -> str:
    low, high = paired_interval(losses, Bootstrap(users, RESAMPLES, SEED))
    return f"{math.exp(losses.mean()):.4f} [{math.exp(low):.4f}, {math.exp(high):.4f}]"


def slates_cells(asked: FreeAnswers | None, reference: FreeAnswers | None, test_set: TestSet, kl: float, share: float) -> str:
    if not asked or not reference:
        return ""
    count, made = len(asked.rankings.faults), {"calibration": {"kl": kl}, "bytes": {"share_of_bfloat16": share}}
    bootstrap = Bootstrap(test_set.users[:count], RESAMPLES, SEED)
    gate = quantization_gate(reference.rankings, asked.rankings, test_set.targets[:count], 1.0, bootstrap, made)
    low, high = gate["interval"]
    return (
        f" {gate['difference']:+.4f} [{low:+.4f}, {high:+.4f}] | {gate['right_to_wrong']}, {gate['wrong_to_right']} | "
        f"{100 * gate['equal_share']:.1f} % | {asked.load_seconds:.2f} | {asked.tokens_a_second:,.0f} |"
    )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, help="a folder whose evaluation is done")
    parser.add_argument("--model", type=Path, default=Path("data/rl/model"), help="the fine-tuned model")
    parser.add_argument("--base", default="data/midtrain/model", help="what it was fine-tuned from (quantlrm)")
    parser.add_argument("--answers", default="rl", help="whose recorded answers are the held-out text")
    parser.add_argument("--schemes", nargs="+", default=["int4", "int3"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--arms", nargs="+", help="SCHEME:METHOD, in place of all methods at all schemes")
    parser.add_argument("--protect", nargs="*", default=[], choices=["embeddings", "head"], help="what keeps its precision")
    parser.add_argument("--group", type=int, default=64, help="quantize.group_size")
    parser.add_argument("--calibration", type=int, default=48, help="training traces to calibrate on")
    parser.add_argument("--batch", type=int, default=4, help="of them in a forward pass")
    parser.add_argument("--prompts", type=int, default=60, help="held-out slates for perplexity and KL")
    parser.add_argument("--slates", type=int, default=0, help="test slates that every arm answers freely; 0 = none")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--result", type=Path, help="a Markdown file")
    return parser.parse_args()


def main() -> None:
    options = parsed()
    result = options.result.resolve() if options.result else None
    os.chdir(options.project)
    set_threads(options.threads)
    tokenizer = load_tokenizer(options.model)
    test_set = load_test_set(read_slate_tables(), 0)
    layout = layout_of(test_set.catalog, with_mined_rules(load_params("prompt", PromptParams)))
    evaluate = load_params("evaluate", EvaluateParams)
    texts = held_out(test_set, layout, tokenizer, options.answers, options.prompts)
    if not texts:
        raise StageError(f"{OUTPUTS}: no recorded answer of '{options.answers}'; rerun: gr2 run evaluate")
    users = np.array([text.user for text in texts])
    full = load_model(options.model)
    full_hidden, full_head = last_hidden(full, texts), full.get_output_embeddings()
    losses, _ = compare(full_head, full_hidden, full_head, full_hidden, texts)
    reference = ask(options.model, test_set, layout, options.slates, evaluate, options.threads) if options.slates else None
    examples = calibration_examples(TRACES, tokenizer, options.calibration, SEED)
    tokens = sum(len(text.ids) - text.prompt for text in texts)
    more = "NDCG@5 minus full | first choice lost, gained | equal orders | load, s | tokens/s |" if options.slates else ""
    lines = [
        f"{options.model.name}: {full.num_parameters():,} parameters; {len(texts)} held-out prompts of {len(set(users.tolist()))} users, "
        f"{tokens:,} answer tokens; calibrated on {len(examples)} training traces; groups of {options.group}; "
        f"kept: {', '.join(options.protect) or 'nothing'}"
        + (f"; {min(options.slates, len(test_set.slates))} slates answered freely" if options.slates else ""),
        "",
        f"| scheme | method | of bfloat16 | perplexity | KL, nats a token | {more}",
        "|---|---|---|---|---|" + "---|" * more.count("|"),
        f"| {FULL} | | | {perplexity(losses, users)} | |" + slates_cells(reference, reference, test_set, 0.0, 1.0),
    ]
    print("\n".join(lines), flush=True)
    arms = options.arms or [f"{scheme}:{method}" for scheme in options.schemes for method in options.methods]
    for scheme, method in (arm.split(":") for arm in arms):
        set_seed(SEED)
        base = options.base if method == "quantlrm" else QuantizeParams().base
        params = QuantizeParams(
            scheme=scheme, method=method, base=base, protect=options.protect, group_size=options.group, batch_size=options.batch
        )
        with TemporaryDirectory() as folder:
            model = load_model(options.model)
            quantized, _, _ = quantize_model(model, params, examples, options.model)
            written = CompressedLayout.of(model, grid_of(params), quantized)
            size = save_compressed(model, quantized, written, tokenizer, Path(folder))
            share = size / BFLOAT16_BYTES / full.num_parameters()
            # As whoever serves it reads it: with rounded inputs, too, where the scheme has them.
            served = load_model(Path(folder))
            served(input_ids=torch.tensor([[1]]))  # unpacks
            losses, kl = compare(full_head, full_hidden, served.get_output_embeddings(), last_hidden(served, texts), texts)
            del model, served
            asked = ask(Path(folder), test_set, layout, options.slates, evaluate, options.threads) if options.slates else None
        cells = slates_cells(asked, reference, test_set, float(kl.mean()), share)
        lines.append(
            f"| {scheme} | {method} | {100 * share:.1f} % | {perplexity(losses, users)} | {with_interval(kl, users, '.5f')} |{cells}"
        )
        print(lines[-1], flush=True)
        if result:
            result.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
