"""What sft learns from: accepted traces epoch after epoch, practice beside them, and the rows that validation keeps back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from transformers import PreTrainedTokenizerBase

from stages.sft.params import SftParams
from stages.sft.q_tuning import Pruned, pruned, token_errors
from stages.sft.validation_slates import longest_completion
from stages.shared.core.errors import StageError
from stages.shared.core.launch import local_rank
from stages.shared.core.leakage import check_no_heldout
from stages.shared.core.outputs import DATA
from stages.shared.core.schemas import INTERACTIONS, read_slate_table, read_table
from stages.shared.lm.encoding import WeightedExample, encode, epochs, mixed, packed_rows
from stages.shared.lm.models import load_model
from stages.shared.slates import practice
from stages.shared.slates.layouts.dialogue import is_dialogue
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.layouts.marks import THINK_END
from stages.shared.slates.traces import read_traces, taught_document
from stages.shared.training.lora import sid_and_layout_ids
from stages.shared.training.rows.row_files import HELD_OUT, ROWS, write_rows

BASE = DATA / "midtrain/model"


def make_rows(folder: Path, params: SftParams, encoded: EncodedLayout, items: int) -> dict[str, Any]:
    """Writes ROWS and HELD_OUT into `folder` (row_files.py). items: of the catalogue.

    Returns "users": those held out, "longest": tokens of a completion at most, and, for metrics.json, traces, rows, tokens, leak_check,
    prompt_cuts and pruning.
    """
    traces, layout, tokenizer = read_traces(), encoded.layout, encoded.tokenizer
    slates = read_slate_table(DATA / "retrieve/slates.parquet")
    leak_check = check_no_heldout(pairs_seen(traces, slates), read_table(DATA / "ingest/interactions.parquet", INTERACTIONS), "sft")
    # Of whole users: slates of one user share their history.
    users = held_out_users(traces, params)
    is_held_out = pl.col("user").is_in(users)
    fitted = fitted_prompts(traces, encoded)
    examples = trace_examples(fitted.filter(~is_held_out), tokenizer, params, layout.reasoning)
    held_out = trace_examples(fitted.filter(is_held_out), tokenizer, params, layout.reasoning)
    chosen = prune(examples, encoded, params) if params.prune == "q_tuning" else None
    if chosen:
        examples = chosen.examples
    candidates = int(traces["shown"].list.len().max())  # type: ignore[arg-type]
    by_kind = training_rows(examples, params, layout, items, candidates, tokenizer)
    write_rows(folder / ROWS, mixed(by_kind, [params.seed, 1]))
    write_rows(folder / HELD_OUT, held_out)
    return {
        "users": users,
        "longest": longest_completion(examples),
        "traces": traces.height,
        "rows": {kind: len(rows) for kind, rows in by_kind.items()},
        "tokens": {kind: sum(len(row.ids) for row in rows) for kind, rows in by_kind.items()},
        "leak_check": leak_check,
        "prompt_cuts": dict(encoded.cuts),
        "pruning": chosen.figures() if chosen else None,
    }


def held_out_users(traces: pl.DataFrame, params: SftParams) -> list[int]:
    """At least one where there is validation. StageError where no other would be left."""
    if not params.validate_steps:
        return []
    users = traces["user"].unique().sort().to_list()
    count = max(1, round(params.validate_share * len(users)))
    if count >= len(users):
        share = f"params.yaml: sft.validate_share: {params.validate_share}"
        raise StageError(f"{share} of the {len(users)} users with traces leaves none to learn from; lower it")
    return [users[i] for i in np.random.default_rng([params.seed, 2]).permutation(len(users))[:count]]


def fitted_prompts(traces: pl.DataFrame, encoded: EncodedLayout) -> pl.DataFrame:
    """The traces with their prompts cut to prompt.max_tokens of the student. StageError where another layout wrote them."""
    if is_dialogue(traces["prompt"][0]) != encoded.layout.dialogue:
        written = encoded.layout.options.layout
        raise StageError(f"data/traces/traces.parquet: not written in prompt.layout: {written}; rerun: gr2 run traces")
    if not encoded.layout.dialogue:
        return traces
    return traces.with_columns(prompt=pl.Series([encoded.fitted(prompt) for prompt in traces["prompt"]], dtype=pl.String))


def trace_examples(traces: pl.DataFrame, tokenizer: PreTrainedTokenizerBase, params: SftParams, reasoning: bool) -> list[WeightedExample]:
    """Prompt without weight, trace with lambda_r, the end of thinking and the answer with lambda_o; times the trace's weight, if any."""
    own_weights = traces["weight"] if "weight" in traces.columns else [1.0] * traces.height
    documents = []
    for (prompt, trace, answer), own in zip(traces.select("prompt", "trace", "answer").iter_rows(), own_weights, strict=True):
        weights = (own * params.reasoning_weight, own * params.answer_weight)
        if prompt.endswith(THINK_END) == reasoning:
            raise StageError(
                f"data/traces/traces.parquet: its prompts were written with prompt.reasoning {str(not reasoning).lower()}; "
                "rerun: gr2 run traces"
            )
        documents.append(taught_document(prompt, trace, answer, reasoning, weights))
    return encode(documents, tokenizer)


def prune(examples: Sequence[WeightedExample], encoded: EncodedLayout, params: SftParams) -> Pruned:
    """Q-Tuning by the starting model, which every process holds whole for this, whatever it trains with."""
    device = f"cuda:{local_rank()}" if torch.cuda.is_available() else "cpu"
    model = load_model(BASE, "float32" if device == "cpu" else params.precision, device)
    tokenizer, reasoning = encoded.tokenizer, encoded.layout.reasoning
    errors = token_errors(model, examples, tokenizer.pad_token_id)
    starts = [answer_start(example, encoded.reader.think_end, reasoning) for example in examples]
    return pruned(examples, errors, starts, sid_and_layout_ids(tokenizer), params.sample_keep, params.token_keep)


def answer_start(example: WeightedExample, think_end: int, reasoning: bool) -> int:
    """Where the think block closes; without one, the first token that counts."""
    if reasoning:
        return len(example.ids) - 1 - example.ids[::-1].index(think_end)
    return next(place for place, weight in enumerate(example.weights) if weight)


def training_rows(
    examples: Sequence[WeightedExample], params: SftParams, layout: Layout, items: int, candidates: int, tokenizer: PreTrainedTokenizerBase
) -> dict[str, list[WeightedExample]]:
    """As many rows as the run takes: traces, epoch after epoch, each in a new random order; and practice, packed as long as a trace."""
    rng = np.random.default_rng(params.seed)
    # `steps` counts optimizer steps of all processes together; the Trainer hands each process its share of the list.
    total = params.rows_taken
    practised = round(params.practice_share * total) if layout.reasoning else 0  # an empty think block gives no relevances to sort
    needed = total - practised
    source = practice.sorting_documents(layout, items, rng, candidates)
    return {
        "traces": [examples[i] for i in epochs(len(examples), needed, rng)],
        "practice": packed_rows(source, practised, max(len(example.ids) for example in examples), tokenizer, portion=16),
    }


def pairs_seen(traces: pl.DataFrame, slates: pl.DataFrame) -> pl.DataFrame:
    """Every (user, item) that the traces teach: the target, whatever else was taken, and the history of their slates."""
    used = slates.join(traces.select("slate").unique(), on="slate", how="semi")
    history = used.select("user", pl.col("history").alias("item")).explode("item")
    pairs = pl.concat([history, used.select("user", pl.col("target").alias("item"))])
    if "grades" not in used.columns:
        return pairs
    graded = used.select("user", pl.col("candidates").alias("item"), "grades").explode("item", "grades").filter(pl.col("grades") > 0)
    return pl.concat([pairs, graded.select("user", "item")])
