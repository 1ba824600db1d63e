"""Parameters of reinforcement learning."""

from typing import Literal, Self

from pydantic import Field, model_validator

from stages.shared.core.launch import TrainingSection
from stages.shared.core.model_folder import ModelFolder


class RlParams(TrainingSection):
    start: ModelFolder = Field("data/sft/model", description="the folder that learning starts from; data/distil/model: of distil")
    steps: int = Field(30, ge=1, description="rollout batches, one optimizer step each unless updates > 1")
    prompts: int = Field(12, ge=1, description="groups kept a step and process")
    group: int = Field(8, ge=2, description="G, rollouts a prompt")
    updates: int = Field(1, ge=1, description="optimizer steps on each batch of rollouts")
    lr: float = Field(1e-4, gt=0)
    clip_low: float = Field(0.2, gt=0, description="eps_low of DAPO")
    clip_high: float = Field(0.28, gt=0, description="eps_high of DAPO (clip-higher)")
    alpha: float = Field(0.2, ge=0, description="weight of the format reward")
    reward: Literal["conditional", "ungated", "random"] = Field("conditional", description="ungated and random are ablations")
    invalid_reward: float = Field(-1.0, le=0, description="reward of an output that is no permutation, or that contradicts its trace")
    consistent: bool = Field(True, description="an answer against the relevances of its own trace counts as invalid")
    constrained: bool = Field(
        False, description="roll out under constrained decoding (stages/shared/slates/constraint.py); as evaluate.constrained"
    )
    shuffle: bool = Field(True, description="show each slate's candidates in a random order")
    temperature: float = Field(1.0, gt=0)
    max_tokens: int = Field(224, ge=16, description="longest completion")
    variance_tolerance: float = Field(1e-6, ge=0, description="groups whose rewards' standard deviation is at most this teach nothing")
    max_refills: int = Field(2, ge=0, description="extra rollout rounds to fill a step; then it trains on what there is")
    batch_size: int = Field(96, ge=1, description="rollouts generated at once")
    micro_prompts: int = Field(4, ge=1, description="groups in one forward and backward pass")

    @model_validator(mode="after")
    def processes_have_a_way_to_meet(self) -> Self:
        # Here, not when the policy is opened: that is in the children of torchrun, whose errors come once each, between tracebacks.
        if self.all_processes > 1 and not self.deepspeed:
            raise ValueError(f"processes: {self.all_processes} processes need deepspeed, e.g. infra/deepspeed/zero2.json")
        return self
