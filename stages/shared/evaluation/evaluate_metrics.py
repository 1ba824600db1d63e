"""data/evaluate/metrics.json: what was asked. The figures that follow from the answers are in data/report/metrics.json."""

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA, read_json

METRICS = DATA / "evaluate/metrics.json"


class AnswerCount(BaseModel):
    model_config = ConfigDict(extra="forbid")

    answers: int = Field(description="rows of outputs.parquet")
    valid: int = Field(description="those that are permutations of their slate")


class EvaluateMetrics(BaseModel):
    model_config = ConfigDict(extra="forbid")

    slates: int = Field(description="test slates that hold their target, answered by every ranker")
    users: int = Field(description="users of these slates")
    max_slates: int = Field(description="evaluate.max_slates of this evaluation")
    repeat_temperature: float = Field(description="evaluate.repeat_temperature of this evaluation")
    answers: dict[str, dict[str, AnswerCount]] = Field(
        description="kind of answer -> ranker -> counts; kinds: greedy, free, shuffled, repeated, reserved"
    )
    leak_check: dict[str, dict[str, int]] = Field(description="counts of every leak check; one that fails stops the stage")
    promotion_users: float | None = Field(None, description="evaluate.promotion_users of this evaluation, where it is above 0")
    prompt_cuts: dict[str, dict[str, int]] | None = Field(
        None,
        description="layout chat: model -> what prompt.max_tokens cut: prompts, titles, items of history, prompts too long yet",
    )
    inputs: dict[str, str] = Field(description="path of what was read -> MD5 of its content, as DVC counts it")


def read_evaluate_metrics() -> EvaluateMetrics:
    try:
        return EvaluateMetrics.model_validate(read_json(METRICS))
    except ValidationError as error:
        raise StageError(f"{METRICS}: not the metrics of this version's evaluation ({error}); rerun: gr2 run evaluate") from None
