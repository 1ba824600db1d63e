"""data/report/metrics.json: its keys, each with what it means. docs/stages.md has the table of them (stages/tools/metrics_tables.py)."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class MetricDifference(BaseModel):
    model_config = ConfigDict(extra="forbid")

    mean: float = Field(description="mean over the slates")
    diff: float = Field(description="mean difference from the initial ranking; of a contrast, from the other ranker")
    diff_ci: tuple[float, float] = Field(description="its 95 % interval: paired bootstrap over users")


class SlateMetrics(BaseModel):
    """One entry a metric: recall@1, @3, @5, @10, ndcg@3, @5, @10, mrr, rank_gain, promoted, demoted."""

    model_config = ConfigDict(extra="allow")
    # Metric names such as recall@1 cannot be names of fields.
    __pydantic_extra__: dict[str, MetricDifference] = Field(init=False)

    n: int = Field(description="slates")


class RankerMetrics(SlateMetrics):
    valid_share: float = Field(description="answers that are permutations of their slate")
    identity_share: float = Field(description="answers that are the initial ranking again")
    all_slates: SlateMetrics | None = Field(None, description="the same where a slate whose target the retriever missed counts 0")


class SliceDifference(BaseModel):
    model_config = ConfigDict(extra="forbid")

    mean: float = Field(description="mean over the slates of the slice")
    diff: float = Field(description="mean difference from the initial ranking")
    diff_ci: tuple[float, float] | None = Field(description="its 95 % interval; null if all slates are of one user")


class SliceMetrics(BaseModel):
    """One entry a metric."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, SliceDifference] = Field(init=False)

    slice: str = Field(description="label of the slice; other pools the small ones")
    n: int = Field(description="slates of the slice")
    users: int = Field(description="users of these slates")


class PairTest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    p: float = Field(description="p-value of the sign-flip test, or of McNemar's test under mcnemar")
    p_holm: float = Field(description="the same with Holm's correction")
    only_first: int | None = Field(None, description="mcnemar only: slates that a alone puts first")
    only_second: int | None = Field(None, description="mcnemar only: slates that b alone puts first")


class SignificanceMetrics(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tests: int = Field(description="sign-flip tests made, over which Holm corrects")
    flips: int = Field(description="sign flips drawn for each")
    seed: int = Field(description="report.seed")
    pairs: dict[str, dict[str, PairTest]] = Field(description="a-b -> metric, or mcnemar -> its test")


class UnconstrainedMetrics(BaseModel):
    model_config = ConfigDict(extra="forbid")

    n: int = Field(description="slates answered without the constraint")
    valid_share: float = Field(description="answers that are permutations of their slate")
    invalid: dict[str, float] = Field(description="fault -> share of all answers")


class HeadroomMetrics(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ndcg_at_5: float = Field(alias="ndcg@5", description="expected NDCG@5")
    share: float | None = Field(description="share of the headroom; null where nothing can be gained")
    share_ci: tuple[float, float] | None = Field(None, description="its 95 % interval")


class QuantizationGate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    passed: bool = Field(description="whether the interval lies above -margin; nothing is hidden where it does not")
    margin: float = Field(description="report.gate_margin")
    metric: str = Field(description="what is compared: ndcg@5")
    difference: float = Field(description="the quantized model's minus the RL model's, mean over the same slates")
    interval: tuple[float, float] = Field(description="its 95 % interval: paired bootstrap over users")
    slates: int = Field(description="test slates")
    right_to_wrong: int = Field(description="slates whose target the RL model put first, and the quantized one did not")
    wrong_to_right: int = Field(description="the other way round")
    equal_share: float = Field(description="slates that both put in the same order")
    valid_difference: float = Field(description="share of answers that are permutations, the quantized model's minus the RL model's")
    kl: float = Field(description="calibration.kl of data/quantize/metrics.json")
    share_of_bfloat16: float = Field(description="bytes.share_of_bfloat16 of data/quantize/metrics.json")


class InversePropensity(BaseModel):
    model_config = ConfigDict(extra="forbid")

    taken: int = Field(description="taken candidates")
    effective: float = Field(description="so many of equal weight would say as much: (sum of weights)^2 / sum of squares")
    heaviest: float = Field(description="share of the heaviest in the sum of weights")
    models: dict[str, MetricDifference] = Field(
        description="ranker -> weighted mean of 1 / log2(new rank + 1), 0 from rank 6 on, and its difference from the initial ranking"
    )


class BootstrapSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    resamples: int = Field(description="report.resamples")
    seed: int = Field(description="report.seed")
    level: float = Field(description="confidence of every interval")


class AllSlates(BaseModel):
    model_config = ConfigDict(extra="forbid")

    slates: int = Field(description="test slates, with or without their target")
    users: int = Field(description="users of these slates")
    hit_rate: float = Field(description="share of them that hold their target")


class ReportMetrics(BaseModel):
    model_config = ConfigDict(extra="forbid")

    slates: int = Field(description="test slates that hold their target")
    users: int = Field(description="users of these slates")
    bootstrap: BootstrapSettings = Field(description="how the intervals were drawn")
    all_slates: AllSlates = Field(description="the test slates before those without a target were left out")
    models: dict[str, RankerMetrics] = Field(
        description="ranker -> its metrics; baselines: incoming (the initial ranking), popularity, last_item, lambdamart, fusion, oracle; "
        "lambdamart_all_features where prompt.more_features names any; models: sft, rl, quantized"
    )
    contrasts: dict[str, RankerMetrics] = Field(description="a-b -> the metrics of a, with the difference from b; keys as of a ranker")
    significance: SignificanceMetrics = Field(description="sign-flip p-values over users, and McNemar for R@1, with Holm's correction")
    gate: QuantizationGate = Field(description="whether the quantized model is as good as the RL model")
    slices: dict[str, list[SliceMetrics]] = Field(description="by history length, popularity, initial rank, category: the RL model")
    slices_of: dict[str, dict[str, list[SliceMetrics]]] = Field(description="the same slices for every other ranker")
    # Its keys are typed in diagnostics/audit_figures.py; here they would only be said twice.
    audit: dict[str, dict[str, Any]] = Field(
        description="ranker -> copying, swaps, Kendall tau, position bias under shuffled input, length drift, reasoning that contradicts "
        "the answer"
    )
    # Keys that other programs read keep the names of earlier releases, as this one and `achievable`.
    suspicions: dict[str, list[str]] = Field(description="model -> what stands out in its audit, in words (red flags)")
    unconstrained: dict[str, UnconstrainedMetrics] = Field(
        description="model -> valid share and faults of its answers without the constraint"
    )
    leak_check: dict[str, dict[str, int]] = Field(description="counts of the five checks that fail the evaluation")
    verdict: list[str] = Field(description="what the numbers allow one to say, in sentences, as on the page; the first is the headline")
    inverse_propensity: InversePropensity | None = Field(
        None, description="logged slates with propensities only: what was taken, weighted by 1 / the chance that it was looked at"
    )
    repeats: dict[str, Any] = Field({}, description="several answers a slate at a temperature: the worst, the mean and the best")
    achievable: dict[str, HeadroomMetrics] = Field(
        {}, description="synthetic world only: share of the headroom (gain of the oracle) in expected NDCG@5, with its interval"
    )
