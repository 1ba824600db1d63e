"""Parameters of the evaluation."""

from pydantic import Field

from stages.shared.core.params import ComputeSection
from stages.shared.generation.params import EngineParams


class EvaluateParams(ComputeSection):
    max_tokens: int = Field(224, ge=16, description="longest completion")
    max_slates: int = Field(0, ge=0, description="evaluate only the first this many test slates by user, then position; 0 = all")
    constrained: bool = Field(False, description="constrained decoding: every answer a permutation (stages/shared/slates/constraint.py)")
    window_step: int = Field(0, ge=0, description="with prompt.window: candidates that the window moves at a time; 0 = half of it")
    passes: int = Field(1, ge=1, description="with prompt.window: how often the windows go over a slate")
    free_slates: int = Field(
        150,
        ge=0,
        description="under constrained: test slates that each model also answers freely, to tell how often it needs the constraint",
    )
    shuffled_slates: int = Field(100, ge=0, description="test slates also shown to the RL model in a shuffled order: position bias")
    repeats: int = Field(4, ge=0, description="answers of the SFT and RL models to the same slate at repeat_temperature; 0 = none")
    repeat_slates: int = Field(100, ge=2, description="test slates, evenly spaced by user, that are answered so often")
    repeat_temperature: float = Field(0.7, gt=0, description="temperature of the repeats")
    promotion_users: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the users whose test slates are kept for gr2 promote: answered, and in no report; 0 = it decides on all",
    )
    keep_invocations: bool = Field(False, description="write prompts and completions into invocations.parquet (gr2 show)")
    engine: EngineParams = EngineParams()
