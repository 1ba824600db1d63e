"""data/sft/metrics.json."""

from pydantic import Field

from stages.shared.core.stage_metrics import HeldOutCheck, LossSpan, StageMetrics, ValidationSpan


class Quadrants(StageMetrics):
    noise: int = Field(description="high perplexity, high entropy")
    misconception: int = Field(description="high perplexity, low entropy")
    redundant: int = Field(description="low perplexity, low entropy")
    calibration: int = Field(description="low perplexity, high entropy")


class KeptTraces(StageMetrics):
    misconception: int = Field(description="kept, some of their tokens without weight")
    calibration: int = Field(description="kept as they are")


class PruningMetrics(StageMetrics):
    """Q-Tuning's plane of error and uncertainty (stages/sft/q_tuning.py)."""

    quadrants: Quadrants = Field(description="traces by the medians of the starting model's perplexity and entropy")
    kept: KeptTraces = Field(
        description="traces trained on; where sample_keep asks for more than the two quadrants hold, their neighbours too"
    )
    tokens: int = Field(description="tokens of the kept misconceptions that counted in the loss")
    pruned_tokens: int = Field(description="of these, tokens that no longer do")


class SftMetrics(StageMetrics):
    traces: int = Field(description="rows of traces.parquet")
    reasoning: bool = Field(description="prompt.reasoning: whether the model was taught to write a trace")
    steps: int = Field(description="optimizer steps")
    rows: dict[str, int] = Field(description="training rows: traces, and packed practice")
    tokens: dict[str, int] = Field(description="training tokens of these rows, all processes together")
    loss: LossSpan = Field(description="of the training; the curve is in loss.csv")
    validation: ValidationSpan | None = Field(None, description="loss on held-out rows (absent where validate_steps is 0)")
    pruning: PruningMetrics | None = Field(None, description="which traces and tokens are trained on (absent where sft.prune is none)")
    prompt_cuts: dict[str, int] | None = Field(
        None, description="layout chat: what prompt.max_tokens cut: prompts, titles, items of history, and prompts too long all the same"
    )
    leak_check: HeldOutCheck = Field(description="counts of the leak check")
