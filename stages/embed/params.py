"""Section `embed` of params.yaml."""

from typing import Literal, Self

from pydantic import Field, model_validator

from stages.shared.core.model_folder import NAMED_MODELS, ModelFolder
from stages.shared.core.params import ComputeSection, Section, check_shards

CATALOGUE = "data/ingest/items.parquet"
SHARDS = "data/embed_shard"  # a folder a shard, by its number
PACKAGED = f"{NAMED_MODELS}/packaged-minilm"
LEAST_ITEMS = 20  # of collaborative vectors: fewer leave nothing to fit and to judge the prediction on


class CollaborativeParams(Section):
    """Item vectors learnt from the base sequences (a SASRec's item table), joined to the text's."""

    mode: Literal["none", "concat", "align"] = Field(
        "none", description="concat: both side by side; align: rotated into the text's space and added, dimension as the text's"
    )
    weight: float = Field(0.3, gt=0.0, lt=1.0, description="of the collaborative part; the text has 1 - weight")
    hidden: int = Field(64, ge=8, description="dimension of the collaborative vectors")
    layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    max_length: int = Field(50, ge=2, description="items the SASRec attends to")
    dropout: float = Field(0.2, ge=0.0, lt=1.0)
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(64, ge=1)
    lr: float = Field(0.001, gt=0.0)

    @model_validator(mode="after")
    def heads_divide_hidden(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self


class EmbedParams(ComputeSection):
    threads: int = Field(1, ge=1, description="threads of torch, BLAS and OpenMP")
    model: ModelFolder = Field(
        PACKAGED, description=f"{PACKAGED}, a sentence-transformers folder (modules.json), or a transformers folder (config.json)"
    )
    pooling: Literal["auto", "mean", "last"] = Field(
        "auto", description="tokens into one vector: auto = what the folder's modules say; a plain transformers folder needs mean or last"
    )
    instruction: str = Field(
        "",
        description="put before every text, to the letter. Qwen3-Embedding wants none before documents, which items are; "
        'before queries it wants "Instruct: {task}\\nQuery:". Empty = the default prompt of the folder, where it has one',
    )
    max_tokens: int = Field(0, ge=0, description="longer texts are cut to so many tokens, special ones included; 0 = the model's own limit")
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of the model's weights; auto = bfloat16 on a GPU, float32 on a CPU; the output is always float32"
    )
    batch_size: int = Field(64, ge=1)
    save_seconds: float = Field(20.0, ge=0.0, description="finished batches are kept this often, for a run after a kill; 0 = every batch")
    shards: list[int] = Field(
        [],
        description="[0, 1, 2, 3] = the texts are encoded in four stages embed_shard@0 to @3, each cached and placed by itself; with "
        f"reads: {SHARDS}; [] = in the stage itself",
    )
    reads: str = Field(CATALOGUE, description=f"{SHARDS} where there are shards. dvc.yaml takes this value as a dependency")
    collaborative: CollaborativeParams = CollaborativeParams()

    @model_validator(mode="after")
    def shards_are_read(self) -> Self:
        check_shards("embed", self.shards, self.reads, SHARDS, CATALOGUE)
        return self
