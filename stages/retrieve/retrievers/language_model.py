"""The retriever `language_model`: the mid-trained model writes the next SID (stages/shared/lm/sid_search.py)."""

from pathlib import Path

import numpy as np

from stages.retrieve.params import RetrieveParams
from stages.retrieve.retrievers.retriever import Figures
from stages.shared.core.device import device_of
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA
from stages.shared.core.schemas import SIDS, read_table
from stages.shared.lm.models import load_model, load_tokenizer
from stages.shared.lm.sid_search import SidSearch
from stages.shared.slates.trie import SidTrie


def fit(params: RetrieveParams, items: int) -> tuple[SidSearch, Figures]:
    """Loads what midtrain learnt; nothing is learnt here. StageError where the folder, the SIDs and the catalogue do not fit."""
    folder, options = Path(params.reads), params.language_model
    if not folder.is_dir():
        raise StageError(f"{folder}: no such folder; run the stage that makes it: gr2 run {folder.parent.name}")
    sids = read_table(DATA / "tokenize/sids.parquet", SIDS).sort("item")
    trie = SidTrie.load(DATA / "tokenize/trie.safetensors")
    if sids.height != items or len(trie.items) != items:
        raise StageError(
            f"data/tokenize: {sids.height} SIDs and a trie of {len(trie.items)} for {items} items in data/ingest/items.parquet; "
            "rerun: gr2 run tokenize"
        )
    codes_NL = np.array(sids["codes"].to_list(), dtype=np.int64)
    if (strangers := np.flatnonzero(trie.item(codes_NL) != np.arange(items))).size:
        raise StageError(f"data/tokenize/sids.parquet: the SID of item {strangers[0]} is not in trie.safetensors; rerun: gr2 run tokenize")
    model = load_model(folder, device=device_of(params.device, "retrieve.device"))
    ranker = SidSearch(model, load_tokenizer(folder), codes_NL, trie, options.beam, options.history, options.batch_size)
    return ranker, {"beam": options.beam, "history": options.history}
