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


class RankedAt(StageMetrics):
    ndcg_at_5: float = Field(alias="ndcg@5", description="mean NDCG@5; an answer that is no permutation counts as the order shown")
    valid: float = Field(description="share of answers that are permutations")


class ValidationRanking(StageMetrics):
    slates: int = Field(description="slates of users that no training row is of, each answered greedily and freely")
    decides: bool = Field(description="whether NDCG@5 chose the best step")
    best: RankedAt = Field(description="at the step whose weights are the output")
    last: RankedAt = Field(description="after the last step")


class ValidationSpan(StageMetrics):
    rows: int = Field(description="rows that no training row is of")
    best_step: int = Field(description="the step whose weights are the output: that of the lowest loss, or highest NDCG@5 (sft.best_by)")
    best: float = Field(description="validation loss there")
    last: float = Field(description="validation loss after the last step")
    ranking: ValidationRanking | None = Field(None, description="of validation slates (absent where sft.validate_slates is 0)")
