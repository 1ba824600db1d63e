"""What the metrics.json of several stages have in common. docs/stages.md lists the keys of each (stages/tools/metrics_tables.py)."""

from pydantic import BaseModel, ConfigDict, Field


class StageMetrics(BaseModel):
    """Base of every model of a metrics.json: a key without a field, and so without a description, is refused."""

    model_config = ConfigDict(extra="forbid")


class HeldOutCheck(StageMetrics):
    """What leakage.check_no_heldout counts."""

    pairs_seen: int = Field(description="(user, item) pairs that the stage learns from or counts")
    pairs_held_out: int = Field(description="pairs of valid and test that their user did not take earlier too")
    overlap: int = Field(description="pairs in both; always 0, as a leak fails the stage")


class LossSpan(StageMetrics):
    first: float = Field(description="training loss at the first step or epoch")
    last: float = Field(description="training loss at the last one")


class ValidationSpan(StageMetrics):
    rows: int = Field(description="rows that no training row is of")
    best_step: int = Field(description="the step whose weights are the output: that of the lowest loss")
    best: float = Field(description="validation loss there")
    last: float = Field(description="validation loss after the last step")
