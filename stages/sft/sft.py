"""Supervised fine-tuning on accepted traces: L = -lambda_r sum log p(reasoning) - lambda_o sum log p(answer) (GR2, arXiv 2602.07774).

A second arm without reasoning is trained for comparison: the same base model, the same accepted orders, an empty think block, as many
training tokens.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from transformers import PreTrainedTokenizerBase

from stages.sft.metrics import SftMetrics
from stages.sft.params import SftParams
from stages.shared.core.leakage import check_no_heldout
from stages.shared.core.outputs import DATA, Outputs
from stages.shared.core.schemas import INTERACTIONS, SLATES, read_table
from stages.shared.lm.encoding import WeightedExample, encode
from stages.shared.lm.models import load_model, load_tokenizer, save_model
from stages.shared.slates.prompts import THINK_END, without_reasoning
from stages.shared.slates.traces import TRACES
from stages.shared.training.trainer import train_supervised, write_curve

BASE = DATA / "midtrain/model"


def sft(params: SftParams, outputs: Outputs) -> None:
    traces = read_table(DATA / "traces/traces.parquet", TRACES)
    slates = read_table(DATA / "retrieve/slates.parquet", SLATES)
    interactions = read_table(DATA / "ingest/interactions.parquet", INTERACTIONS)
    leak_check = check_no_heldout(pairs_seen(traces, slates), interactions, "sft")
    tokenizer = load_tokenizer(BASE)

    arms = {"model": reasoning_examples(traces, tokenizer, params)}
    if params.no_reasoning_arm:
        arms["no_reasoning"] = direct_examples(traces, tokenizer, params)
    # The arms are compared at equal training tokens, not steps: an answer without a trace is a fraction of the length.
    budget = params.steps * mean_tokens(arms["model"])
    metrics: dict[str, object] = {"traces": traces.height, "leak_check": leak_check}
    for name, examples in arms.items():
        steps = round(budget / mean_tokens(examples))
        model = load_model(BASE)  # afresh: the first arm trained its own copy in place
        curve = train_supervised(
            model, order_of_epochs(examples, params, steps), params.model_copy(update={"steps": steps}), tokenizer.pad_token_id
        )
        save_model(model, tokenizer, outputs.path(name))
        write_curve(curve, outputs.path("loss.csv" if name == "model" else "no_reasoning_loss.csv"))
        tokens = steps * params.batch_size * params.accumulate * params.all_processes * mean_tokens(examples)
        metrics[name] = {"steps": steps, "tokens": round(tokens), "loss_first": curve[0]["loss"], "loss_last": curve[-1]["loss"]}
    outputs.metrics(metrics, SftMetrics)


def reasoning_examples(traces: pl.DataFrame, tokenizer: PreTrainedTokenizerBase, params: SftParams) -> list[WeightedExample]:
    """Prompt without weight, trace with lambda_r, the end of thinking and the answer with lambda_o."""
    rows = traces.select("prompt", "trace", "answer").iter_rows()
    weights = (params.reasoning_weight, params.answer_weight)
    # </think> counts with the answer: in decoding the model itself must decide when to stop thinking.
    return encode([[(prompt, 0.0), (trace, weights[0]), (THINK_END + answer, weights[1])] for prompt, trace, answer in rows], tokenizer)


def direct_examples(traces: pl.DataFrame, tokenizer: PreTrainedTokenizerBase, params: SftParams) -> list[WeightedExample]:
    pairs = [without_reasoning(prompt, answer) for prompt, answer in traces.select("prompt", "answer").iter_rows()]
    return encode([[(prompt, 0.0), (answer, params.answer_weight)] for prompt, answer in pairs], tokenizer)


def order_of_epochs(examples: Sequence[WeightedExample], params: SftParams, steps: int) -> list[WeightedExample]:
    """As many examples as the run takes, epoch after epoch, each in a new random order."""
    rng = np.random.default_rng(params.seed)
    # `steps` counts optimizer steps of all processes together; the Trainer hands each process its share of the list.
    needed = steps * params.batch_size * params.accumulate * params.all_processes
    order = np.concatenate([rng.permutation(len(examples)) for _ in range(-(-needed // len(examples)))])
    return [examples[i] for i in order[:needed]]


def mean_tokens(examples: Sequence[WeightedExample]) -> float:
    return sum(len(example.ids) for example in examples) / len(examples)


def pairs_seen(traces: pl.DataFrame, slates: pl.DataFrame) -> pl.DataFrame:
    """Every (user, item) that the traces teach: the target and the history of their slates."""
    used = slates.join(traces.select("slate").unique(), on="slate", how="semi")
    history = used.select("user", pl.col("history").alias("item")).explode("item")
    return pl.concat([history, used.select("user", pl.col("target").alias("item"))])
