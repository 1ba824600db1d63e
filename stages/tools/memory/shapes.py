"""The dimensions of a decoder, of which its memory follows: out of its config.json, or as published for a folder that is not there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages.midtrain.params import SCRATCH, MidtrainParams
from stages.shared.core.errors import StageError
from stages.shared.core.model_folder import NAMED_MODELS
from stages.shared.core.outputs import read_json
from stages.shared.slates.layouts.marks import SPECIAL_TOKENS

PUBLISHED = Path(NAMED_MODELS) / "published.json"
FAMILIES = ("llama", "qwen2", "qwen3")  # decoders whose parameters `parameters` counts
ROWS = 64  # the embedding grows to a multiple of it (stages/shared/lm/models.py)


@dataclass(frozen=True)
class Shape:
    """rows: of the embedding; tokens: of the tokenizer, at most as many. stored: bytes of a number in the folder's files."""

    family: str
    rows: int
    tokens: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    stored: int = 4

    @property
    def parameters(self) -> int:
        """Embedding, head, and a layer's projections and norms: of one Llama block, with Qwen2's biases or Qwen3's norms of q and k."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        extra = {"qwen2": queries + 2 * keys, "qwen3": 2 * self.head_dim}.get(self.family, 0)
        return self.embeddings + self.matrices + self.layers * (extra + 2 * self.hidden) + self.hidden

    @property
    def embeddings(self) -> int:
        """Numbers of the embedding, and of a head of its own."""
        return self.rows * self.hidden * (1 if self.tied else 2)

    @property
    def matrices(self) -> int:
        """Numbers of the linear layers of all blocks."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linear().values())

    def linear(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of a block's linear layers, by the names that all these families give them."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        up, down = (self.hidden, self.intermediate), (self.intermediate, self.hidden)
        attention = {"q_proj": (self.hidden, queries), "k_proj": (self.hidden, keys), "v_proj": (self.hidden, keys)}
        return {**attention, "o_proj": (queries, self.hidden), "gate_proj": up, "up_proj": up, "down_proj": down}

    def kv_bytes(self, width: int) -> int:
        """Of keys and values of one token, each number `width` bytes."""
        return 2 * self.layers * self.kv_heads * self.head_dim * width

    def layer_bytes(self) -> int:
        """What one layer keeps of one token for the backward pass under bfloat16 autocast: its own input, the inputs of every matrix,
        what norms and rotations need (float32 in norms), and the attention's output; no attention matrix, as flash kernels keep none."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return 20 * self.hidden + 16 * queries + 12 * keys + 8 * self.intermediate

    def with_sids(self, levels: int, codebook_size: int) -> "Shape":
        """After mid-training has added the layout's tokens and those of SIDs."""
        tokens = self.tokens + layout_tokens(levels, codebook_size)
        return replace(self, tokens=tokens, rows=max(self.rows, -(-tokens // ROWS) * ROWS))


def layout_tokens(levels: int, codebook_size: int) -> int:
    """How many tokens the layout and the SIDs have."""
    return len(SPECIAL_TOKENS) + 2 + levels * codebook_size


def shape_of(folder: Path) -> Shape | None:
    """Of the model at `folder`, or of the published one of that name; None where neither is known."""
    if (folder / "config.json").exists():
        return from_config(read_json(folder / "config.json"), _tokens(folder))
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    values = published.get(folder.name)
    return from_config(values, values["tokens"]) if isinstance(values, dict) else None


def scratch_shape(params: MidtrainParams) -> Shape:
    heads = params.heads
    sizes = (params.hidden, params.intermediate, params.layers, heads, heads, params.hidden // heads)
    return Shape("qwen2", params.text_vocabulary, params.text_vocabulary, *sizes, True)


def from_config(values: Mapping[str, Any], tokens: int | None = None) -> Shape:
    """StageError for an architecture whose parameters are not known here."""
    if (family := values.get("model_type")) not in FAMILIES:
        raise StageError(f"model_type {family}: gr2 doctor computes the memory of {', '.join(FAMILIES)} alone")
    heads = values["num_attention_heads"]
    return Shape(
        family=str(family),
        rows=values["vocab_size"],
        tokens=tokens or values["vocab_size"],
        hidden=values["hidden_size"],
        intermediate=values["intermediate_size"],
        layers=values["num_hidden_layers"],
        heads=heads,
        kv_heads=values.get("num_key_value_heads") or heads,
        head_dim=values.get("head_dim") or values["hidden_size"] // heads,
        tied=bool(values.get("tie_word_embeddings", False)),
        stored=4 if (values.get("dtype") or values.get("torch_dtype") or "float32") == "float32" else 2,
    )


def named_folder(model: str) -> Path:
    """The folder of a model that params.yaml names; one that comes with the project is made."""
    folder = Path(model)
    if folder.parent == Path(NAMED_MODELS) and model != SCRATCH:
        from stages.shared.lm.packaged import packaged_model  # takes seconds, and only these need it

        return packaged_model(folder.name)
    return folder


def _tokens(folder: Path) -> int | None:
    if not (path := folder / "tokenizer.json").exists():
        return None
    content = read_json(path)
    ids = [*content.get("model", {}).get("vocab", {}).values()] if isinstance(content.get("model", {}).get("vocab"), dict) else []
    return len({*ids, *(token["id"] for token in content.get("added_tokens", []))}) or None
