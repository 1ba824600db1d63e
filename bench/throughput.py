"""Two promises about speed, each against the plain way in the same run: training on packed rows, and generating through our vLLM engine.

    python bench/throughput.py FOLDER [--only packing|vllm] [--model scratch|MODEL_FOLDER] [--documents 1500] [--repeats 3]

FOLDER: a project after `gr2 run tokenize --profile beauty`; its users' histories, written as semantic IDs, are the documents.

- packing: our trainer on rows of --row-length tokens that hold several documents, which do not see each other, against Hugging Face's
  Trainer as it comes, with the documents of a batch padded to the longest. The same model, documents, precision, optimizer and tokens a
  step; what counts are tokens of documents a second.
- vllm: our engine against vLLM's own LLM.generate, the same folder, prompts and settings, greedy, all completions equally
  long.

Pairs alternate in order. Prints and writes bench/results/throughput.md: medians, and the median ratio of a pair with its range.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorForLanguageModeling, PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments

from stages.midtrain.decoder import scratch_model
from stages.midtrain.params import MidtrainParams
from stages.midtrain.vocabulary import learn_tokenizer
from stages.shared.core.outputs import DATA
from stages.shared.core.schemas import INTERACTIONS, SIDS, read_table
from stages.shared.generation.base import Sampling
from stages.shared.lm.encoding import WeightedExample, encode, mixed, pack
from stages.shared.lm.models import extend_vocabulary, load_model, load_tokenizer, resize_embeddings, save_model
from stages.shared.slates.layouts.marks import END, USER
from stages.shared.training.trainer import train_supervised

RESULT = Path(__file__).resolve().parent / "results/throughput.md"
SEED = 7


def documents(folder: Path) -> tuple[list[str], int, int]:
    """A text a user, and the levels and codes of the semantic IDs in it."""
    with contextlib.chdir(folder):
        sids = read_table(DATA / "tokenize/sids.parquet", SIDS).sort("item")
        log = read_table(DATA / "ingest/interactions.parquet", INTERACTIONS).sort("user", "position")
    of_item = sids["sid"].to_list()
    texts = [
        USER + "history:" + "".join(of_item[item] for item in items) + END
        for items in log.group_by("user", maintain_order=True).agg("item")["item"]
    ]
    return texts, len(sids["codes"][0]), int(sids["codes"].explode().max()) + 1  # type: ignore[arg-type]


def base(options: argparse.Namespace, levels: int, codes: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if options.model != "scratch":
        tokenizer, model = load_tokenizer(Path(options.model)), load_model(Path(options.model))
        extend_vocabulary(tokenizer, levels, codes, END)
        resize_embeddings(model, tokenizer)
        return model, tokenizer
    tokenizer = learn_tokenizer([], 512, ["history:"])
    extend_vocabulary(tokenizer, levels, codes)
    return scratch_model(MidtrainParams.model_validate({"max_length": 4096, "seed": SEED}), tokenizer), tokenizer


def packed(model: PreTrainedModel, examples: Sequence[WeightedExample], pad_id: int, options: argparse.Namespace) -> tuple[float, int]:
    """Seconds, and tokens of documents."""
    rows = mixed({"": pack(examples, options.row_length)}, SEED)
    of_documents = sum(len(row.ids) for row in rows)
    a_step = max(1, round(options.batch_size * of_documents / len(examples) / options.row_length))
    section = {"steps": len(rows) // a_step, "batch_size": a_step, "processes": 1, "threads": options.threads, "seed": SEED}
    params = MidtrainParams.model_validate({**section, "optimizer": "adamw", "schedule": "constant", "precision": options.precision})
    began = time.perf_counter()
    train_supervised(model, rows, params, pad_id)
    return time.perf_counter() - began, sum(len(row.ids) for row in rows[: params.steps * a_step])


def plain(
    model: PreTrainedModel, examples: Sequence[WeightedExample], tokenizer: PreTrainedTokenizerBase, options: argparse.Namespace
) -> tuple[float, int]:
    steps = len(examples) // options.batch_size
    rows = [{"input_ids": example.ids} for example in examples]
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=steps,
            per_device_train_batch_size=options.batch_size,
            learning_rate=1e-3,
            lr_scheduler_type="constant_with_warmup",
            bf16=options.precision == "bfloat16",
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=SEED,
        )
        model.train()
        trainer = Trainer(
            model=model, args=arguments, train_dataset=rows, data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False)
        )  # type: ignore[arg-type]
        began = time.perf_counter()
        trainer.train()
    # An epoch or less: every document at most once.
    return time.perf_counter() - began, round(steps * options.batch_size * statistics.fmean(len(example.ids) for example in examples))


def pairs(ours: Callable[[], float], theirs: Callable[[], float], repeats: int) -> tuple[list[float], list[float]]:
    """Speeds of both, measured in turn, the first of a pair alternating."""
    speeds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats):
        for side in ((0, 1), (1, 0))[repeat % 2]:
            speeds[side].append((ours, theirs)[side]())
    return speeds


def row(name: str, words: tuple[str, str], speeds: tuple[list[float], list[float]]) -> str:
    ratios = [one / other for one, other in zip(*speeds, strict=True)]
    cells = [f"{statistics.median(values):,.0f}" for values in speeds]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return f"| {name} | {words[0]} {cells[0]} | {words[1]} {cells[1]} | {ratio} |"


def packing(options: argparse.Namespace, texts: Sequence[str], levels: int, codes: int) -> str:
    model, tokenizer = base(options, levels, codes)
    examples = encode([[(text, 1.0)] for text in texts], tokenizer)
    start = {name: value.clone() for name, value in model.state_dict().items()}

    def speed(train: Callable[[], tuple[float, int]]) -> float:
        model.load_state_dict(start)
        seconds, tokens = train()
        return tokens / seconds

    pad_id = int(tokenizer.pad_token_id)
    speeds = pairs(
        lambda: speed(lambda: packed(model, examples, pad_id, options)),
        lambda: speed(lambda: plain(model, examples, tokenizer, options)),
        options.repeats,
    )
    lengths = sorted(len(example.ids) for example in examples)
    tokens = f"{lengths[len(lengths) // 2]} tokens in the median ({lengths[0]} to {lengths[-1]})"
    name = f"training, {model.num_parameters() / 1e6:.1f}M parameters, {len(examples):,} documents of {tokens}"
    return row(name, ("packed", "plain Trainer"), speeds)


def vllm(options: argparse.Namespace, texts: Sequence[str], levels: int, codes: int) -> str:
    from stages.shared.generation.vllm_engine import VllmEngine

    model, tokenizer = base(options, levels, codes)
    prompts = [list(tokenizer(text)["input_ids"])[:256] for text in texts[: options.prompts]]
    # No completion ends by itself, or the work of the two sides would differ: the end is a row that no token has, and whose logit, 0, is
    # never the greatest.
    weight: Any = model.get_output_embeddings().weight
    never, length = weight.shape[0] - 1, options.tokens
    assert never >= len(tokenizer), "the head has no row to spare"
    with torch.no_grad():
        weight[never] = 0.0
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, tokenizer, Path(folder))
        engine: Any = VllmEngine(Path(folder), never, 512, threads=options.threads, batch_size=64)

        def ours() -> float:
            began = time.perf_counter()
            engine.generate(prompts, Sampling(length, temperature=0.0))
            return len(prompts) * length / (time.perf_counter() - began)

        def bare() -> float:
            from vllm import SamplingParams, TokensPrompt

            settings = SamplingParams(max_tokens=length, temperature=0.0, ignore_eos=True, detokenize=False)
            began = time.perf_counter()
            engine.llm.generate([TokensPrompt(prompt_token_ids=prompt) for prompt in prompts], settings, use_tqdm=False)
            return len(prompts) * length / (time.perf_counter() - began)

        ours()  # the first one compiles and fills caches
        speeds = pairs(ours, bare, options.repeats)
        engine.close()
    return row(f"generation, {len(prompts)} prompts, {length} tokens each", ("our engine", "bare vLLM"), speeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=("packing", "vllm"))
    parser.add_argument("--model", default="scratch", help="a folder, or scratch: the default decoder of 1.6M parameters")
    parser.add_argument("--documents", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=16, help="documents a step of the plain Trainer")
    parser.add_argument("--row-length", type=int, default=512)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=64, help="of each completion")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    texts, levels, codes = documents(options.folder)
    order = np.random.default_rng(SEED).permutation(len(texts))[: options.documents]
    texts = [texts[place] for place in order]
    parts = {"packing": packing, "vllm": vllm}
    lines = [f"# Training and generation against the plain way\n\n`python bench/throughput.py {' '.join(['FOLDER', *sys.argv[2:]])}`\n"]
    lines += ["| tokens a second | ours | plain | ratio of a pair, median (range) |", "|---|---|---|---|"]
    lines += [part(options, texts, levels, codes) for name, part in parts.items() if options.only in (None, name)]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
