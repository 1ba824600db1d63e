"""Parameters of supervised fine-tuning."""

from typing import Literal

from pydantic import Field, model_validator

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
    validate_slates: int = Field(
        0,
        ge=0,
        description="slates of these users that the model answers at each validation, for NDCG@5 and the share of valid answers; 0 = none",
    )
    best_by: Literal["loss", "ndcg"] = Field("loss", description="which of them says what step's weights are the output")

    prune: Literal["none", "q_tuning"] = Field(
        "none",
        description="q_tuning: traces and their tokens are chosen by what the model finds wrong and unsure before training (q_tuning.py)",
    )
    sample_keep: float = Field(0.5, gt=0, le=1, description="share of the traces that q_tuning keeps")
    token_keep: float = Field(
        0.7, gt=0, le=1, description="of the misconceptions: share of the trace's tokens, SIDs apart, that keep their weight"
    )

    @model_validator(mode="after")
    def _slates_are_validated(self) -> "SftParams":
        if self.validate_slates and not self.validate_steps:
            raise ValueError("validate_slates: slates are answered at validations, and validate_steps is 0; set both")
        if self.best_by == "ndcg" and not self.validate_slates:
            raise ValueError("best_by: ndcg needs answers to measure; set validate_slates, 256 say, or best_by: loss")
        return self
