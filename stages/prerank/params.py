"""Parameters of the pre-ranker and its slates."""

from pydantic import Field

from stages.shared.params import ComputeSection


class PrerankParams(ComputeSection):
    candidates: int = Field(10, ge=2, description="K, candidates a slate")
    history: int = Field(20, ge=1, description="items of history kept in a slate")
    max_length: int = Field(50, ge=2, description="items the SASRec attends to")
    hidden: int = Field(64, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    dropout: float = Field(0.3, ge=0.0, lt=1.0)
    epochs: int = Field(60, ge=1)
    batch_size: int = Field(64, ge=1)
    lr: float = Field(0.001, gt=0.0)
    evidence_last: int = Field(10, ge=1, description="items of history that the evidence looks at")
    evidence_levels: int = Field(10, ge=2, le=10, description="buckets a fact is told in")
