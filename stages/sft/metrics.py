"""data/sft/metrics.json."""

from pydantic import Field

from stages.shared.core.stage_metrics import HeldOutCheck, StageMetrics


class SftArmMetrics(StageMetrics):
    steps: int = Field(description="optimizer steps")
    tokens: int = Field(description="training tokens, all processes together")
    loss_first: float = Field(description="loss at the first step")
    loss_last: float = Field(description="loss at the last step")


class SftMetrics(StageMetrics):
    traces: int = Field(description="rows of traces.parquet")
    model: SftArmMetrics = Field(description="the model that reasons")
    no_reasoning: SftArmMetrics | None = Field(None, description="the arm without reasoning (sft.no_reasoning_arm)")
    leak_check: HeldOutCheck = Field(description="counts of the leak check")
