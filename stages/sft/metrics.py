"""data/sft/metrics.json."""

from pydantic import Field

from stages.shared.core.stage_metrics import HeldOutCheck, LossSpan, StageMetrics, ValidationSpan


class SftMetrics(StageMetrics):
    traces: int = Field(description="rows of traces.parquet")
    reasoning: bool = Field(description="prompt.reasoning: whether the model was taught to write a trace")
    steps: int = Field(description="optimizer steps")
    rows: dict[str, int] = Field(description="training rows: traces, and packed practice")
    tokens: dict[str, int] = Field(description="training tokens of these rows, all processes together")
    loss: LossSpan = Field(description="of the training; the curve is in loss.csv")
    validation: ValidationSpan | None = Field(None, description="loss on held-out rows (absent where validate_steps is 0)")
    prompt_cuts: dict[str, int] | None = Field(
        None, description="layout chat: what prompt.max_tokens cut: prompts, titles, items of history, and prompts too long all the same"
    )
    leak_check: HeldOutCheck = Field(description="counts of the leak check")
