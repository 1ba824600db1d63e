"""Supervised fine-tuning on accepted traces: L = -lambda_r sum log p(reasoning) - lambda_o sum log p(answer) (GR2, arXiv 2602.07774).

Without reasoning (prompt.reasoning: false) the same accepted orders are taught, after an empty think block.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.sft.metrics import SftMetrics
from stages.sft.params import SftParams
from stages.sft.rows import BASE, make_rows
from stages.sft.validation_slates import choose_slates, ranking_check
from stages.shared.core.launch import is_main_process
from stages.shared.core.outputs import DATA, Outputs
from stages.shared.core.schemas import ITEMS, SIDS, read_slate_table, read_table
from stages.shared.lm.models import load_model, load_tokenizer, save_model
from stages.shared.slates.candidate_features import read_candidate_features
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.slates.layouts.domain_rules import with_mined_rules
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.slate import Catalog, load_slates
from stages.shared.training.checkpoints import training_resume
from stages.shared.training.lora import sid_and_layout_ids
from stages.shared.training.relevances import relevance_words
from stages.shared.training.rows.made_once import made_once
from stages.shared.training.rows.row_files import HELD_OUT, ROWS, RowFiles
from stages.shared.training.trainer import train_supervised, write_curve
from stages.shared.training.validation import RankingCheck, validation_span
from stages.shared.training.zero import shared_out


def sft(params: SftParams, outputs: Outputs) -> None:
    catalog = Catalog.from_tables(read_table(DATA / "tokenize/sids.parquet", SIDS), read_table(DATA / "ingest/items.parquet", ITEMS))
    encoded = EncodedLayout(layout_of(catalog), load_tokenizer(BASE))
    with made_once("sft", lambda folder: make_rows(folder, params, encoded, len(catalog.sids))) as (folder, made):
        learn(params, catalog, encoded, folder, made, outputs)


def learn(params: SftParams, catalog: Catalog, encoded: EncodedLayout, folder: Path, made: Mapping[str, Any], outputs: Outputs) -> None:
    """folder, made: of make_rows."""
    layout, tokenizer = encoded.layout, encoded.tokenizer
    rows, held_out = RowFiles(folder / ROWS), RowFiles(folder / HELD_OUT)
    with shared_out(params):
        model = load_model(BASE)
    words = relevance_words(layout, tokenizer, params.relevance_spread)
    resume = training_resume("sft", params, rows, BASE)
    ranking, validated = validation_ranking(params, catalog, encoded, made) if params.validate_slates else (None, 0)
    ids = sid_and_layout_ids(tokenizer)
    curve = train_supervised(model, rows, params, tokenizer.pad_token_id, words, ids, resume.folder, held_out, ranking)

    if not is_main_process():
        return  # the main one alone writes, and under ZeRO-3 it alone has the weights
    save_model(model, tokenizer, outputs.path("model"))
    write_curve(curve, outputs.path("loss.csv"))
    outputs.metrics(
        {
            "traces": made["traces"],
            "reasoning": layout.reasoning,
            "steps": params.steps,
            "rows": made["rows"],
            "tokens": made["tokens"],
            "loss": {"first": curve[0]["loss"], "last": curve[-1]["loss"]},
            **({"validation": validation_span(curve, len(held_out), validated, params.best_by == "ndcg")} if held_out else {}),
            **({"pruning": made["pruning"]} if made["pruning"] else {}),
            "leak_check": made["leak_check"],
            **({"prompt_cuts": made["prompt_cuts"]} if layout.dialogue else {}),
        },
        SftMetrics,
    )
    # Last: a run that fails after training must find its checkpoint again.
    resume.clear()


def validation_ranking(params: SftParams, catalog: Catalog, encoded: EncodedLayout, made: Mapping[str, Any]) -> tuple[RankingCheck, int]:
    """Asked of slates of the held-out users; how many they are."""
    options = encoded.layout.options
    asked = EncodedLayout(layout_of(catalog, with_mined_rules(options)), encoded.tokenizer)
    slates = read_slate_table(DATA / "retrieve/slates.parquet")
    feature_table = read_candidate_features(DATA / "retrieve/candidate_features.parquet")
    train_slates = load_slates(slates, feature_table, "train", options.less_features)
    chosen = choose_slates(train_slates, made["users"], params, options.window)
    return ranking_check(chosen, asked, made["longest"], params.best_by == "ndcg"), len(chosen)
