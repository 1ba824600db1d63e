"""Makes the language model and teaches it semantic IDs and the layout of a slate: the base of sft."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.midtrain.decoder import scratch_model
from stages.midtrain.dialogue_wording import DialogueWording
from stages.midtrain.documents import CompactWording
from stages.midtrain.metrics import MidtrainMetrics
from stages.midtrain.mixture import CANDIDATES, held_out_rows, make_mixture
from stages.midtrain.new_rows import ItemCodes, start_rows
from stages.midtrain.ordinary_text import OrdinaryText, read_text
from stages.midtrain.params import SCRATCH, MidtrainParams
from stages.midtrain.probes import Probed, probe
from stages.midtrain.vocabulary import learn_tokenizer
from stages.shared.core.errors import StageError
from stages.shared.core.launch import is_main_process
from stages.shared.core.leakage import check_no_heldout, training_interactions
from stages.shared.core.outputs import DATA, Outputs
from stages.shared.core.params import load_params
from stages.shared.core.schemas import INTERACTIONS, ITEMS, SIDS, read_table
from stages.shared.lm.encoding import mixed
from stages.shared.lm.models import extend_vocabulary, load_model, load_tokenizer, resize_embeddings, save_model
from stages.shared.lm.perplexity import perplexity
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.slates.layouts.dialogue import end_of_turn
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.layouts.marks import END
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.slate import Catalog
from stages.shared.training.checkpoints import training_resume
from stages.shared.training.lora import sid_and_layout_ids
from stages.shared.training.relevances import relevance_words
from stages.shared.training.row_rates import RowRates
from stages.shared.training.rows.made_once import made_once
from stages.shared.training.rows.row_files import HELD_OUT, ROWS, RowFiles, write_rows
from stages.shared.training.trainer import train_supervised, write_curve
from stages.shared.training.validation import validation_span
from stages.shared.training.zero import is_shared_out, shared_out


def midtrain(params: MidtrainParams, outputs: Outputs) -> None:
    options = load_params("prompt", PromptParams)
    interactions = read_table(DATA / "ingest/interactions.parquet", INTERACTIONS)
    items = read_table(DATA / "ingest/items.parquet", ITEMS)
    sids = read_table(DATA / "tokenize/sids.parquet", SIDS)
    catalog = Catalog.from_tables(sids, items)
    layout = layout_of(catalog, options)
    base = training_interactions(interactions, ("base",))
    leak_check = check_no_heldout(base, interactions, "midtrain")

    codes_NL = np.array(sids.sort("item")["codes"].to_list(), dtype=np.int64)
    codes = ItemCodes(catalog, codes_NL, DATA / "tokenize/codebooks.safetensors")
    model, tokenizer, new_ids = make_model(params, items["text"].to_list(), codes, layout)
    pretrained = params.model != SCRATCH
    text = read_text(Path(params.text)) if pretrained or params.replay_share else OrdinaryText([], [])
    fit: dict[str, dict[str, float]] = {}
    # The main process alone writes figures; a decoder from scratch has read no text.
    if pretrained and is_main_process() and not is_shared_out(model.parameters()):
        # Before: without its new tokens the model is the checkpoint as it came.
        fit = {"before": perplexity(model, tokenizer, text.kept_back, new_ids), "extended": perplexity(model, tokenizer, text.kept_back)}
    wording = DialogueWording(catalog) if layout.dialogue else CompactWording(catalog)
    # Later interactions of the same users, which no document was made from: recall on them is no memory.
    later = interactions.filter(pl.col("split") == "train")
    probed = Probed(layout, wording, catalog, codes_NL, base, later, options.history, CANDIDATES)

    def make_rows(folder: Path) -> dict[str, Any]:
        mixture = make_mixture(params, layout, wording, base, tokenizer, text.replayed)
        mixture.tell_cuts(params)
        write_rows(folder / ROWS, mixed(mixture.rows, params.seed))
        held_out = held_out_rows(params, layout, wording, later, base, tokenizer, text.kept_back) if params.validate_steps else []
        write_rows(folder / HELD_OUT, held_out)
        tokens = {task: sum(len(row.ids) for row in rows) for task, rows in mixture.rows.items()}
        return {"tokens": tokens, "cut": mixture.cut, "dropped": len(mixture.too_long)}

    rates = RowRates(model, new_ids, params.new_rows_lr / params.lr) if new_ids and params.new_rows_lr else None
    words = relevance_words(layout, tokenizer, params.relevance_spread)
    with made_once("midtrain", make_rows) as (folder, made):
        rows, held_out = RowFiles(folder / ROWS), RowFiles(folder / HELD_OUT)
        resume = training_resume("midtrain", params, rows, Path(params.model) if pretrained else None)
        curve = train_supervised(model, rows, params, tokenizer.pad_token_id, words, sid_and_layout_ids(tokenizer), resume.folder, held_out)
        last = rows[-1].ids
    if rates:
        rates.stop()

    if not is_main_process():
        return  # the main one alone writes, and under ZeRO-3 it alone has the weights
    save_model(model, tokenizer, outputs.path("model"))
    # Before anything is published: a tokenizer that reads otherwise after loading would spoil every later stage.
    check_reload(tokenizer, load_tokenizer(outputs.path("model")), last)
    write_curve(curve, outputs.path("loss.csv"))
    outputs.metrics(
        {
            "loss": {"first": curve[0]["loss"], "last": curve[-1]["loss"]},
            **({"validation": validation_span(curve, len(held_out))} if held_out else {}),
            "parameters": model.num_parameters(),
            "vocabulary": len(tokenizer),
            "rows": len(rows),
            **made,
            "text": fit | {"after": perplexity(model, tokenizer, text.kept_back)} if pretrained else None,
            "probes": probe(model, tokenizer, probed, params.probe_documents, params.probe_users, params.seed + 1),
            "leak_check": leak_check,
        },
        MidtrainMetrics,
    )
    # Last: a run that fails after training must find its checkpoint again.
    resume.clear()


class Made(NamedTuple):
    """new_ids: of the tokens that a pretrained model got; none of a new model."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    new_ids: list[int]


def make_model(params: MidtrainParams, texts: list[str], codes: ItemCodes, layout: Layout) -> Made:
    """A new small decoder with its own vocabulary, or a pretrained folder with the SIDs added."""
    levels, codebook_size = codes.codes_NL.shape[1], int(codes.codes_NL.max()) + 1
    if params.model == SCRATCH:
        if layout.dialogue:
            raise StageError(
                "params.yaml: prompt.layout: chat speaks through the chat template of a pretrained model, and midtrain.model is a new "
                "decoder; name an instruction-tuned model, or set prompt.layout: compact"
            )
        tokenizer: PreTrainedTokenizerBase = learn_tokenizer(texts, params.text_vocabulary, layout.words())
        if params.lora.rank:
            raise StageError("params.yaml: midtrain.lora: adapters are for a pretrained model; name one in midtrain.model, or set rank: 0")
        extend_vocabulary(tokenizer, levels, codebook_size)
        return Made(scratch_model(params, tokenizer), tokenizer, [])
    from stages.shared.lm.packaged import folder_of

    folder = folder_of(params.model)
    tokenizer = load_tokenizer(folder)
    added = extend_vocabulary(tokenizer, levels, codebook_size, end_of_turn(tokenizer) if layout.dialogue else END)
    with shared_out(params):
        model = load_model(folder)
        resize_embeddings(model, tokenizer)
    return Made(model, tokenizer, start_rows(model, tokenizer, added, params.new_rows, codes, params.seed))


def check_reload(saved: PreTrainedTokenizerBase, loaded: PreTrainedTokenizerBase, ids: list[int]) -> None:
    """Fails if the tokenizer on disk splits text otherwise than the one trained with: every later stage would read another language."""
    text = saved.decode(ids, skip_special_tokens=False)
    if saved(text)["input_ids"] != loaded(text)["input_ids"] or saved.get_vocab() != loaded.get_vocab():
        raise StageError("data/midtrain/model: the saved tokenizer does not read as the one trained with; check the transformers version")
