"""Makes the language model and teaches it semantic IDs: the base of sft."""

from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.midtrain import documents
from stages.midtrain.decoder import scratch_model
from stages.midtrain.metrics import MidtrainMetrics
from stages.midtrain.params import SCRATCH, MidtrainParams
from stages.midtrain.vocabulary import learn_tokenizer
from stages.shared.core.errors import StageError
from stages.shared.core.leakage import check_no_heldout, training_interactions
from stages.shared.core.model_folder import NAMED_MODELS
from stages.shared.core.outputs import DATA, Outputs
from stages.shared.core.params import load_params
from stages.shared.core.schemas import INTERACTIONS, ITEMS, SIDS, read_table
from stages.shared.lm.encoding import WeightedExample, encode, pack
from stages.shared.lm.models import extend_vocabulary, load_model, load_tokenizer, resize_embeddings, save_model
from stages.shared.slates.prompts import Catalog, PromptParams
from stages.shared.training.trainer import collate, train_supervised, write_curve

CANDIDATES = 10  # of a made-up slate
PROBE_DOCUMENTS = 64


def midtrain(params: MidtrainParams, outputs: Outputs) -> None:
    options = load_params("prompt", PromptParams)
    interactions = read_table(DATA / "ingest/interactions.parquet", INTERACTIONS)
    items = read_table(DATA / "ingest/items.parquet", ITEMS)
    sids = read_table(DATA / "tokenize/sids.parquet", SIDS)
    catalog = Catalog.from_tables(sids, items)
    base = training_interactions(interactions, ("base",))
    leak_check = check_no_heldout(base, interactions, "midtrain")

    model, tokenizer = make_model(params, items["text"].to_list(), sids)
    rows = training_rows(params, options, catalog, base, tokenizer)
    curve = train_supervised(model, rows, params, tokenizer.pad_token_id)

    save_model(model, tokenizer, outputs.path("model"))
    check_reload(tokenizer, load_tokenizer(outputs.path("model")), rows[-1].ids)
    write_curve(curve, outputs.path("loss.csv"))
    outputs.metrics(
        {
            "loss": {"first": curve[0]["loss"], "last": curve[-1]["loss"]},
            "parameters": model.num_parameters(),
            "vocabulary": len(tokenizer),
            "rows": len(rows),
            "skill_token_accuracy": skill_accuracy(model, tokenizer, catalog, options, params.seed + 1),
            "leak_check": leak_check,
        },
        MidtrainMetrics,
    )


def make_model(params: MidtrainParams, texts: list[str], sids: pl.DataFrame) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A new small decoder with its own vocabulary, or a pretrained folder with the SIDs added."""
    levels = len(sids["codes"][0])
    codebook_size = int(sids["codes"].explode().max()) + 1  # type: ignore[arg-type]
    if params.model == SCRATCH:
        tokenizer: PreTrainedTokenizerBase = learn_tokenizer(texts, params.text_vocabulary)
        extend_vocabulary(tokenizer, levels, codebook_size)
        return scratch_model(params, tokenizer), tokenizer
    from stages.shared.lm.packaged import packaged_model

    folder = Path(params.model)
    if folder.parent == Path(NAMED_MODELS):
        folder = packaged_model(folder.name)
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    extend_vocabulary(tokenizer, levels, codebook_size)
    resize_embeddings(model, tokenizer)
    return model, tokenizer


def training_rows(
    params: MidtrainParams, options: PromptParams, catalog: Catalog, base: pl.DataFrame, tokenizer: PreTrainedTokenizerBase
) -> list[WeightedExample]:
    """As many rows as the run will take, of each task its share: the short tasks mixed, then the full layout."""
    rng = np.random.default_rng(params.seed)
    sequences = base.group_by("user", maintain_order=True).agg("item")["item"].to_list()
    total = params.steps * params.batch_size * params.accumulate * params.all_processes
    # As many SIDs as fit into a row, with one place left for the words around them.
    window = max(2, params.row_length // (len(tokenizer(catalog.sids[0])["input_ids"])) - 1)
    sources = [
        (params.sequence_share, documents.sequence_documents(sequences, catalog, rng, window)),
        (params.caption_share, documents.caption_documents(catalog, rng)),
        (params.ordering_share, documents.ordering_documents(catalog, rng, CANDIDATES)),
        (params.reading_share, documents.reading_documents(rng, CANDIDATES)),
        (params.skill_share, documents.full_layout_documents(catalog, options, rng, CANDIDATES)),
    ]
    rows_by_source: list[list[WeightedExample]] = []
    for share, source in sources:
        # In portions: the sources are endless, and how many documents fill a row depends on their lengths.
        needed, packed = round(share * total), list[WeightedExample]()
        while len(packed) < needed:
            packed += pack(encode(list(islice(source, min(4096, 8 * (needed - len(packed))))), tokenizer), params.row_length)
        rows_by_source.append(packed[:needed])
    # The full layout comes after the short documents: copying is learnt on them in half the tokens.
    short, long = [row for source_rows in rows_by_source[:-1] for row in source_rows], rows_by_source[-1]
    rows = [short[i] for i in rng.permutation(len(short))] + [long[i] for i in rng.permutation(len(long))]
    if not rows:
        raise StageError(
            "params.yaml: midtrain: all shares are 0; give at least one of sequence_share, caption_share, ordering_share, skill_share"
        )
    longest = max(len(row.ids) for row in rows)
    if longest > params.max_length:
        raise StageError(f"params.yaml: midtrain.max_length {params.max_length} is less than the longest row, {longest} tokens")
    return rows


def check_reload(saved: PreTrainedTokenizerBase, loaded: PreTrainedTokenizerBase, ids: list[int]) -> None:
    """Fails if the tokenizer on disk splits text otherwise than the one trained with: every later stage would read another language."""
    text = saved.decode(ids, skip_special_tokens=False)
    if saved(text)["input_ids"] != loaded(text)["input_ids"] or saved.get_vocab() != loaded.get_vocab():
        raise StageError("data/midtrain/model: the saved tokenizer does not read as the one trained with; check the transformers version")


@torch.no_grad()
def skill_accuracy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, catalog: Catalog, options: PromptParams, seed: int) -> float:
    """Share of the answer's tokens predicted right (teacher-forced) on made-up slates not trained on."""
    # The caller's seed differs from that of training: for made-up slates this is what keeps probes apart from training data.
    probes = list(islice(documents.full_layout_documents(catalog, options, np.random.default_rng(seed), CANDIDATES), PROBE_DOCUMENTS))
    # Weight 0 on everything before the answer, the trace included: only the answer is counted.
    answers = [[(text, 0.0) for text, _ in document[:-1]] + [document[-1]] for document in probes]
    batch = collate(encode(answers, tokenizer), tokenizer.pad_token_id)
    device = next(model.parameters()).device
    ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
    guesses = model(input_ids=ids, attention_mask=mask).logits[:, :-1].argmax(-1)
    counted = batch["weights"][:, 1:].to(device) > 0
    return float((guesses == ids[:, 1:])[counted].float().mean())
