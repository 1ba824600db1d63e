"""Parameters of supervised fine-tuning."""

from pydantic import Field

from stages.shared.training.trainer import OptimizerSection


class SftParams(OptimizerSection):
    reasoning_weight: float = Field(0.5, ge=0, description="lambda_r, loss weight of the trace's tokens (GR2: below answer_weight)")
    answer_weight: float = Field(1.0, gt=0, description="lambda_o, loss weight of the answer's tokens")
    no_reasoning_arm: bool = Field(True, description="train a second model that answers at once, on as many tokens")
