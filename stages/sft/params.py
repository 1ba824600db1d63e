"""Parameters of supervised fine-tuning."""

from pydantic import Field

from stages.shared.training.params import OptimizerSection


class SftParams(OptimizerSection):
    reasoning_weight: float = Field(0.5, ge=0, description="lambda_r, loss weight of the trace's tokens (GR2: below answer_weight)")
    answer_weight: float = Field(1.0, gt=0, description="lambda_o, loss weight of the answer's tokens")
    practice_share: float = Field(
        0.2, ge=0, lt=1, description="share of rows that practise sorting made-up relevances instead (stages/shared/slates/practice.py)"
    )
    validate_share: float = Field(
        0.05, gt=0, lt=1, description="share of the users whose traces are held out for validate_steps, and then not trained on"
    )
