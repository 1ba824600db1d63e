"""Parameters of supervised training; without torch, so that params.yaml can be checked in a moment."""

from typing import Literal

from pydantic import Field

from stages.shared.core.launch import TrainingSection


class OptimizerSection(TrainingSection):
    steps: int = Field(300, ge=1)
    batch_size: int = Field(32, ge=1, description="sequences a step and process")
    accumulate: int = Field(1, ge=1, description="gradient accumulation steps")
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="muon: for models from scratch; DeepSpeed brings its own AdamW")
    lr: float = Field(1e-3, gt=0, description="of AdamW")
    muon_lr: float = Field(0.02, gt=0, description="of the hidden matrices under muon")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="of the rates after the warmup")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps")
    weight_decay: float = Field(0.01, ge=0)
    relevance_spread: float = Field(
        1.5, ge=0, description="standard deviation of the soft labels of relevances, in levels (ordinal.py); 0 = one label a word"
    )
    log_every: int = Field(10, ge=1)
