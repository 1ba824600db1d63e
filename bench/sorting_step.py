"""How fast a pretrained model learns to sort: the letters of an order right, after so many tokens of practice, in three forms.

    gr2 run --until retrieve --profile smollm2       # once, in a clone: PROJECT
    python bench/sorting_step.py --project PROJECT [--steps 60] [--every 15] [--lr 0.0003] [--threads 1] [--name sorting_step]

    counting   practice as the layout `chat` has it: every relevance with its letter behind it, then step 4 (chat_trace.conclusion)
    far        the same without the letter behind a relevance: it stands at the beginning of the line alone
    direct     relevances, then the answer

Each form starts from the project's midtrain.model as it comes (these lists name candidates by letter, so no SID is needed) and sees the
same made-up lists: weights in float32, bfloat16 under autocast, eight lists of 2 to 10 candidates a step. Measured on the same 24 lists of
ten, what stands before each letter given: share of the letters of the first order written that are the model's likeliest, and of lists of
which all are.
"""

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import chdir
from itertools import islice
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from midtrain_runs import write_lines
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.midtrain.params import MidtrainParams
from stages.shared.core.params import load_params
from stages.shared.core.schemas import ITEMS, SIDS, read_table
from stages.shared.lm.encoding import encode
from stages.shared.lm.models import load_model, load_tokenizer
from stages.shared.lm.packaged import folder_of
from stages.shared.slates import practice
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.layouts.marks import LETTERS, THINK_END
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.slate import Catalog
from stages.shared.training.heap import freed_memory_kept
from stages.shared.training.trainer import collate

CANDIDATES = 10
MEASURED = 24
LISTS = 8  # a step
HELD = 4  # lists in memory at once


def documents(layout: Layout, items: int, seed: int, form: str, longest: bool = False) -> Iterator[practice.Document]:
    """Endless. longest: lists of CANDIDATES alone."""
    for *before, (taught, _) in practice.sorting_documents(layout, items, np.random.default_rng(seed), CANDIDATES):
        context = "".join(text for text, _ in before)
        if longest and len(layout.claims(context).relevances) < CANDIDATES:
            continue
        if form != "counting":
            context = re.sub(r"(relevance \w+) \([A-Z]\)", r"\1", context)
        if form == "direct":
            taught = THINK_END + taught.partition(THINK_END)[2]
        yield [(context, 0.0), (taught, 1.0)]


def taught_logits(model: PreTrainedModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """(logits [T, V], ids [T], row [T]) of the tokens with weight."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.get_decoder()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state[:, :-1]
        weighted = batch["weights"][:, 1:] > 0
        logits = model.get_output_embeddings()(hidden[weighted]).float()
    return logits, batch["input_ids"][:, 1:][weighted], weighted.nonzero()[:, 0]


@torch.no_grad()
def measured(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, lists: Sequence[practice.Document], form: str
) -> tuple[float, float]:
    """(share of letters right, share of lists wholly right)."""
    names = [letter.strip() for letter in LETTERS[:CANDIDATES]]
    letters = torch.tensor(sorted({tokenizer.encode(said, add_special_tokens=False)[-1] for name in names for said in (name, f" {name}")}))
    shares = []
    examples = encode(lists, tokenizer)
    for start in range(0, len(examples), HELD):
        logits, ids, rows = taught_logits(model, collate(examples[start : start + HELD], tokenizer.pad_token_id))
        right = logits.argmax(-1) == ids
        for row in rows.unique().tolist():
            places = ((rows == row) & torch.isin(ids, letters)).nonzero()[:, 0]
            # The explanation names a candidate, too: between step 4 and the answer's own letters.
            order = places[-CANDIDATES:] if form == "direct" else places[:CANDIDATES]
            shares.append(float(right[order].float().mean()))
    return float(np.mean(shares)), float(np.mean([share == 1.0 for share in shares]))


def curve(folder: Path, layout: Layout, items: int, form: str, options: argparse.Namespace) -> list[tuple[int, float, float]]:
    """(tokens seen, share of letters, share of lists) every so many steps."""
    tokenizer, model = load_tokenizer(folder), load_model(folder, "float32", "cpu")
    lists = list(islice(documents(layout, items, options.seed + 1, form, longest=True), MEASURED))
    source = documents(layout, items, options.seed, form)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, betas=(0.9, 0.95), weight_decay=0.01)
    points, seen, began = [], 0, perf_counter()
    for step in range(options.steps + 1):
        if step % options.every == 0:
            points.append((seen, *measured(model, tokenizer, lists, form)))
            print(
                f"{form}: {seen:,} tokens, letters {points[-1][1]:.3f}, lists {points[-1][2]:.2f}, {perf_counter() - began:.0f} s",
                flush=True,
            )
        for group in optimizer.param_groups:
            group["lr"] = options.lr * min(1.0, (step + 1) / 10)
        optimizer.zero_grad()
        examples = encode(list(islice(source, LISTS)), tokenizer)
        for start in range(0, LISTS, HELD):
            batch = collate(examples[start : start + HELD], tokenizer.pad_token_id)
            logits, ids, _ = taught_logits(model, batch)
            (torch.nn.functional.cross_entropy(logits, ids) * HELD / LISTS).backward()  # type: ignore[no-untyped-call]
            seen += int(batch["attention_mask"].sum())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--project", type=Path, default=Path(), help="with data up to retrieve and prompt.layout: chat; its params.yaml counts"
    )
    parser.add_argument("--forms", nargs="+", choices=("counting", "far", "direct"), default=["counting", "far", "direct"])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=15, help="steps between measurements")
    parser.add_argument("--lr", type=float, default=0.0003)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", default="sorting_step", help="of the two files in bench/results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with chdir(options.project), freed_memory_kept():
        catalog = Catalog.from_tables(
            read_table(Path("data/tokenize/sids.parquet"), SIDS), read_table(Path("data/ingest/items.parquet"), ITEMS)
        )
        layout = layout_of(catalog, load_params("prompt", PromptParams))
        folder = folder_of(load_params("midtrain", MidtrainParams).model)
        curves = {form: curve(folder, layout, len(catalog.sids), form, options) for form in options.forms}
    lines = ["| form | tokens of practice: letters right (lists of ten wholly right) |", "|---|---|"]
    lines += [
        f"| {form} | " + "; ".join(f"{seen:,}: {one:.3f} ({all_:.2f})" for seen, one, all_ in points) + " |"
        for form, points in curves.items()
    ]
    write_lines(options.name, "Learning to sort, a pretrained model", lines, curves)


if __name__ == "__main__":
    main()
