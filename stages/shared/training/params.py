"""Parameters of supervised training; without torch, so that params.yaml can be checked in a moment."""

from typing import Literal

from pydantic import Field, model_validator

from stages.shared.core.launch import TrainingSection
from stages.shared.core.params import Section


class LoraSection(Section):
    rank: int = Field(0, ge=0, description="of the adapters (peft); 0 = no adapters, all weights are trained")
    alpha: int = Field(32, gt=0, description="the adapters' product is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="of what the adapters read")
    targets: list[str] = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], min_length=1, description="linear layers, by name"
    )
    token_rows: bool = Field(True, description="the embedding rows of SIDs and layout tokens are trained in full")


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
    group_by_length: bool = Field(
        False,
        description="rows of like lengths in a batch, less of which is padding then; the batches stay in random order (length_groups.py)",
    )
    loss_chunk: int = Field(0, ge=0, description="tokens whose logits exist at a time, recomputed in the backward pass; 0 = all of a batch")
    loss_mean: Literal["batch", "step"] = Field(
        "batch", description="the loss is a mean over the weights of: each process's batch, or all batches of all processes in a step"
    )
    lora: LoraSection = LoraSection()
    save_steps: int = Field(
        0, ge=0, description="steps between checkpoints that a killed run goes on from, a multiple of log_every; 0 = none, it starts again"
    )
    validate_steps: int = Field(
        0,
        ge=0,
        description="steps between validations on held-out rows, a multiple of log_every that divides steps; the best step's weights are "
        "the output; 0 = none, the last step's are",
    )

    @property
    def rows_taken(self) -> int:
        """By all steps of all processes."""
        return self.steps * self.batch_size * self.accumulate * self.all_processes

    @model_validator(mode="after")
    def _fits_together(self) -> "OptimizerSection":
        if self.lora.rank and self.optimizer == "muon":
            raise ValueError("optimizer: muon orthogonalises whole matrices and does not suit adapters; with lora.rank set it to adamw")
        if self.save_steps % self.log_every:
            raise ValueError(f"save_steps: {self.save_steps} is no multiple of log_every: {self.log_every}, which the curve needs")
        if self.validate_steps and (self.validate_steps % self.log_every or self.steps % self.validate_steps):
            wanted = f"a multiple of log_every: {self.log_every} and divide steps: {self.steps}"
            raise ValueError(f"validate_steps: {self.validate_steps} must be {wanted}")
        return self
