"""data/distil/metrics.json."""

from pydantic import Field

from stages.shared.core.stage_metrics import HeldOutCheck, LossSpan, StageMetrics, ValidationSpan


class TeacherGap(StageMetrics):
    """Of fresh rollouts of the student on the probe slates."""

    divergence: float = Field(description="mean divergence from the teacher (distil.divergence) of a token, nats")
    length: float = Field(description="mean tokens of a rollout")


class TeacherGapSpan(StageMetrics):
    before: TeacherGap = Field(description="of the student as it begins")
    after: TeacherGap = Field(description="of the distilled model; keys as of before")


class Agreement(StageMetrics):
    """Of greedy answers on the probe slates with the reasoning model's."""

    valid: float = Field(description="share that are permutations")
    first: float = Field(description="share with the reasoning model's first choice")
    kendall_tau: float = Field(description="mean rank correlation of the orders; an answer that is no permutation counts as 0")


class AgreementSpan(StageMetrics):
    before: Agreement = Field(description="of the student as it begins")
    after: Agreement = Field(description="of the distilled model; keys as of before")


class DistilMetrics(StageMetrics):
    mode: str = Field(description="distil.mode; none: no model was made, and the other keys are absent")
    slates: int | None = Field(None, description="training slates learnt from")
    probe_slates: int | None = Field(None, description="training slates of other users, on which before and after are measured")
    steps: int | None = Field(None, description="optimizer steps")
    loss: LossSpan | None = Field(None, description="of the training; the curve is in loss.csv")
    validation: ValidationSpan | None = Field(None, description="loss on rows of the probe slates (absent where validate_steps is 0)")
    teacher_gap: TeacherGapSpan | None = Field(None, description="on_policy: how far the student is from the teacher")
    rows: dict[str, int] | None = Field(None, description="answer_only, race: rows with thoughts and rows without")
    answered: dict[str, int] | None = Field(
        None,
        description="answer_only, race: what became of the reasoning model's answers: valid, or the fault for which they teach nothing",
    )
    at_once: AgreementSpan | None = Field(None, description="answer_only, race: answers without thoughts against the reasoning model's")
    with_thoughts: AgreementSpan | None = Field(None, description="race: the student's answers after thoughts against the same")
    prompt_cuts: dict[str, int] | None = Field(
        None, description="layout chat: what prompt.max_tokens cut: prompts, titles, items of history, and prompts too long all the same"
    )
    leak_check: HeldOutCheck | None = Field(None, description="counts of the leak check")
