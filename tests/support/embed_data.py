"""Tiny random text models of four families, the tables the stage reads, and vectors computed by hand."""

from pathlib import Path

import numpy as np
import polars as pl
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
)

from stages.embed.embed import embed
from stages.embed.params import EmbedParams
from stages.shared.core.outputs import stage_outputs
from stages.shared.core.schemas import INTERACTIONS, ITEMS

WORDS = [
    *("a", "the", "old", "new", "toy", "story", "heat", "bug", "life", "film", "drama", "comedy"),
    *("of", "in", "1995", "1998", "long", "short", "query", "instruct", "item"),
]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64}
TINY = {
    "bert": lambda v: BertModel(BertConfig(vocab_size=v, initializer_range=0.3, **SIZES)),
    "llama": lambda v: LlamaModel(LlamaConfig(vocab_size=v, initializer_range=0.3, num_key_value_heads=1, **SIZES)),
    "qwen2": lambda v: Qwen2Model(Qwen2Config(vocab_size=v, initializer_range=0.3, num_key_value_heads=1, **SIZES)),
    # counts positions from the left, so padding there would shift them
    "gpt2": lambda v: GPT2Model(GPT2Config(vocab_size=v, n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3)),
}


def sentences(count: int, seed: int = 0) -> list[str]:
    """Of 1 to 20 words, all different."""
    rng = np.random.default_rng(seed)
    return [f"{' '.join(rng.choice(WORDS, rng.integers(1, 20)))} {'a ' * (row % 3)}{row}" for row in range(count)]


def tiny_text_model(folder: Path, family: str = "llama", padding: str = "right", pad_token: str | None = "[PAD]") -> Path:
    """A plain transformers folder. Its tokenizer ends every text with [END], as that of Qwen3-Embedding does."""
    specials = ["[PAD]", "[UNK]", "[END]"]
    vocabulary = {word: place for place, word in enumerate([*specials, *WORDS, *map(str, range(400))])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.TemplateProcessing(single="$A [END]", special_tokens=[("[END]", vocabulary["[END]"])])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token=pad_token, unk_token="[UNK]", eos_token="[END]", padding_side=padding
    )
    torch.manual_seed(0)
    TINY[family](len(vocabulary)).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def by_hand(texts: list[str], folder: Path, pooling: str, max_tokens: int | None = None) -> np.ndarray:
    """One text at a time, so without padding: the last hidden state, or the mean of all, at length 1."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in texts:
        tokens = tokenizer(text, return_tensors="pt", truncation=max_tokens is not None, max_length=max_tokens)
        tokens.pop("token_type_ids", None)
        with torch.no_grad():
            states = model(**tokens).last_hidden_state[0]
        vector = (states[-1] if pooling == "last" else states.mean(dim=0)).numpy()
        vectors.append(vector / np.linalg.norm(vector))
    return np.stack(vectors)


def write_items(project: Path, texts: list[str | None]) -> None:
    (project / "data/ingest").mkdir(parents=True, exist_ok=True)
    rows = [(item, f"s{item}", "title", "", [], None, text) for item, text in enumerate(texts)]
    pl.DataFrame(rows, schema=ITEMS, orient="row").write_parquet(project / "data/ingest/items.parquet")


def write_interactions(project: Path, sequences: list[list[int]], splits: list[str]) -> None:
    """One user a sequence; the split of a step is that of its place."""
    rows = [(user, item, place, 100 * place + user, splits[place]) for user, own in enumerate(sequences) for place, item in enumerate(own)]
    pl.DataFrame(rows, schema=INTERACTIONS, orient="row").write_parquet(project / "data/ingest/interactions.parquet")


def run(params: EmbedParams) -> None:
    with stage_outputs("embed") as outputs:
        embed(params, outputs)
