"""Section `promote` of params.yaml: the gates that a candidate must pass. No stage reads it, so a change reruns nothing."""

from typing import Literal

from pydantic import Field

from stages.shared.core.params import Section


class PromoteParams(Section):
    artifact: str = Field("reranker", pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", description="what is promoted, of artifacts in dvc.yaml")
    automatic: bool = Field(False, description="a scheduled run promotes what passes; false: it proposes, and a person promotes")
    metric: Literal["ndcg@5", "ndcg@3", "ndcg@10", "mrr", "recall@1", "recall@3", "recall@5"] = Field(
        "ndcg@5", description="on which candidate and champion are compared, slate by slate"
    )
    require: Literal["non_inferior", "superior"] = Field(
        "non_inferior", description="the 95 % interval of the difference must lie above -margin (non_inferior), or above 0 (superior)"
    )
    margin: float = Field(0.01, ge=0, lt=1, description="how much of the metric a candidate may lose")
    right_within: int = Field(1, ge=1, description="an answer is right when the target is among its first this many")
    max_regressions: float = Field(
        0.10, gt=0, le=1, description="share of slates that were right and become wrong, at most: of its upper confidence bound"
    )
    max_slice_loss: float = Field(
        0.05, ge=0, le=1, description="net share of right answers that a slice may lose, where the loss is significant (Holm over slices)"
    )
    max_copies: float = Field(0.5, gt=0, le=1, description="share of answers that repeat the initial ranking, at most: of its upper bound")
    max_invalid: float = Field(0.02, gt=0, le=1, description="share of answers that are no permutation, at most: of its upper bound")
    max_demotions: float = Field(
        0.45, gt=0, le=1, description="share of slates whose target ends below its initial rank, at most: of its upper bound"
    )
    delta: float = Field(
        0.05, gt=0, lt=0.5, description="chance that any of the upper bounds of copies, invalid answers and demotions is too low"
    )
    resamples: int = Field(10_000, ge=1000, description="bootstrap resamples of an interval, and sign flips of a test")
    seed: int = Field(7, ge=0)
