"""data/midtrain/metrics.json."""

from pydantic import Field

from stages.shared.core.stage_metrics import HeldOutCheck, LossSpan, StageMetrics


class MidtrainMetrics(StageMetrics):
    loss: LossSpan = Field(description="of the training; the curve is in loss.csv")
    parameters: int = Field(description="parameters of the model")
    vocabulary: int = Field(description="tokens of its vocabulary, those of the SIDs among them")
    rows: int = Field(description="training rows")
    skill_token_accuracy: float = Field(
        description="share of the answer's tokens predicted right (teacher-forced) on made-up slates that it was not trained on"
    )
    leak_check: HeldOutCheck = Field(description="counts of the leak check")
