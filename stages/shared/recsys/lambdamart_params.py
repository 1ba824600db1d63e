"""How LambdaMART is fitted; without LightGBM, so that params.yaml can be checked in a moment."""

from pydantic import Field

from stages.shared.core.params import Section


class LambdaMartParams(Section):
    rounds: int = Field(200, ge=1)
    learning_rate: float = Field(0.05, gt=0.0)
    leaves: int = Field(7, ge=2)
    min_leaf: int = Field(50, ge=1, description="candidates a leaf must hold")
    l2: float = Field(5.0, ge=0.0)
    feature_share: float = Field(0.8, gt=0.0, le=1.0, description="features drawn for each tree")
