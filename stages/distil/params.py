"""Parameters of distillation; stages/distil/distil.py says what the modes do."""

from typing import Literal, Self

from pydantic import Field, model_validator

from stages.shared.core.model_folder import NAMED_MODELS, ModelFolder
from stages.shared.generation.params import EngineParams
from stages.shared.training.params import OptimizerSection

NO_MODEL = f"{NAMED_MODELS}/none"


class DistilParams(OptimizerSection):
    mode: Literal["none", "on_policy", "answer_only", "race"] = Field(
        "none",
        description="on_policy: the student's own rollouts, towards a teacher's distributions; answer_only: a reasoning model's answers, "
        "given at once; race: half of the rows with thoughts, half without; none: no model is made",
    )
    student: ModelFolder = Field("data/sft/model", description="the folder whose weights learn")
    teacher: ModelFolder = Field(
        NO_MODEL,
        description=f"the folder learnt from; {NO_MODEL} = the student as it begins (answer_only, race); on_policy and race take one of "
        "the student's vocabulary",
    )
    divergence: Literal["forward", "reverse", "jsd"] = Field(
        "reverse", description="on_policy: of a token's distributions: KL(teacher | student), KL(student | teacher), or Jensen-Shannon"
    )
    beta: float = Field(0.5, gt=0, lt=1, description="jsd: the teacher's share of the mixture")
    temperature: float = Field(1.0, gt=0, description="on_policy: of the rollouts")
    max_tokens: int = Field(224, ge=16, description="longest completion, of rollouts and of the reasoning model")
    constrained: bool = Field(False, description="the reasoning model answers under constrained decoding; rollouts never are")
    shuffle: bool = Field(True, description="show each slate's candidates in a random order")
    max_slates: int = Field(0, ge=0, description="training slates learnt from, drawn at random; 0 = all")
    probe_slates: int = Field(64, ge=1, description="training slates, of users kept out, on which the student is measured before and after")
    reasoning_weight: float = Field(0.9, ge=0, description="race: loss weight of a thought's tokens; those of an answer weigh 1")
    engine: EngineParams = Field(EngineParams(), description="answer_only and race: how the reasoning model is asked")

    @property
    def trains(self) -> bool:
        return self.mode != "none"

    @model_validator(mode="after")
    def learns_from_somebody(self) -> Self:
        if self.mode == "on_policy" and self.teacher in (NO_MODEL, self.student):
            raise ValueError("mode: on_policy learns from another model than the student; name its folder in teacher")
        if self.mode == "on_policy" and self.loss_chunk == 0:
            raise ValueError("mode: on_policy compares whole distributions, of loss_chunk tokens at a time; give a number, such as 512")
        return self
