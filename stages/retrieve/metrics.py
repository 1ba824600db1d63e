"""data/retrieve/metrics.json."""

from pydantic import Field

from stages.shared.core.stage_metrics import HeldOutCheck, LossSpan, StageMetrics


class RetrieverFit(StageMetrics):
    """Which of these keys are given depends on retrieve.model."""

    loss: LossSpan | None = Field(None, description="sasrec: of the fit on all users")
    items_counted: int | None = Field(None, description="popularity: items with at least one interaction")
    similarities: int | None = Field(None, description="item_knn: pairs of items with a similarity above 0 that were kept")
    beam: int | None = Field(None, description="language_model: beams of the search")
    history: int | None = Field(None, description="language_model: items of the history it is told")


class FoldFits(StageMetrics):
    number: int = Field(description="retrieve.folds")
    seed: int = Field(description="retrieve.seed, which deals the users to the folds")
    figures: list[RetrieverFit] = Field(description="a fit for each fold, with the keys of the fit on all users")


class RetrieveLeakCheck(HeldOutCheck):
    in_sample: int = Field(description="slates whose target their retriever learnt from; always 0")
    overcounted: int = Field(description="items counted more often than the allowed rows hold them; always 0")


class SlateCounts(StageMetrics):
    slates: int = Field(description="slates of the split")
    with_target: int = Field(description="slates that hold their target")
    hit_rate: float = Field(description="their share")
    ndcg: float = Field(
        description="NDCG of the slates as they came in, cut at retrieve.candidates (10: NDCG@10); one without its target is 0"
    )
    rank_histogram: list[float] = Field(description="of those with their target, the share at each initial rank, first rank first")


class TotalVariation(StageMetrics):
    value: float = Field(description="total variation distance of the two histograms")
    chance_mean: float = Field(description="mean of the same if the slates were dealt to the two splits at random")
    chance_p95: float = Field(description="its 95th percentile")
    p: float = Field(description="share of random draws at least as large")


class HitRateDifference(StageMetrics):
    difference: float = Field(description="hit rate of train minus that of the other split")
    chance_mean: float = Field(description="mean size of the same if the slates were dealt to the two splits at random")
    chance_p95: float = Field(description="its 95th percentile")
    p: float = Field(description="share of random draws at least as large")


class RankDistance(StageMetrics):
    total_variation: TotalVariation | None = Field(description="of the histograms of initial ranks; null if a split has no such slate")
    hit_rate: HitRateDifference | None = Field(description="of the shares of slates that hold their target; null if a split has no slate")


class PlaceFigures(StageMetrics):
    place: int = Field(description="from 1")
    shown: int = Field(description="slates with a candidate there")
    taken: int = Field(description="those in which it was taken")
    share: float = Field(description="taken / shown; of slates from which something was taken")


class GivenFigures(StageMetrics):
    files: dict[str, int] = Field(description="file -> rows")
    converted: dict[str, str] | None = Field(None, description="file -> encoding that it was read from; absent where all are UTF-8")
    refused: dict[str, dict[str, int]] = Field(description="file -> reason -> rows that cannot be right")
    left_out: dict[str, int] = Field(description="reason -> rows that are right and make no slate")
    slates: int = Field(description="the slates of all splits")
    candidates_mean: float = Field(description="candidates a slate")
    candidates_longest: int = Field(description="candidates of the longest slate")
    several_taken: float = Field(description="share of the slates from which more than one was taken")
    grades: dict[str, int] = Field(description="grade -> candidates taken with it")
    order: str = Field(description="retrieve.given.order: whether candidates stand as they were shown")
    scores: str = Field(description="logged, by place (minus the place), or none")
    propensities: str = Field(description="retrieve.given.propensity: where inverse-propensity weights come from")
    places: list[PlaceFigures] = Field(
        description="how often what stood at each place was taken: the bias of the position and the order's merit"
    )


class RetrieveMetrics(RetrieverFit):
    cross_fit: str = Field(description="retrieve.cross_fit: cut or folds")
    fitted_on: list[str] = Field(description="splits that the retriever was fitted on")
    folds: FoldFits | None = Field(None, description="cross_fit folds only: the fits that rank the training slates")
    given: GivenFigures | None = Field(None, description="retrieve.model given only: the logged slates")
    leak_check: RetrieveLeakCheck = Field(description="counts of the leak checks; one that fails stops the stage")
    slates: dict[str, SlateCounts] = Field(description="split -> its slates")
    rank_distance: dict[str, RankDistance] = Field(
        description="train_valid, train_test -> how unlike the initial ranks of the targets are, next to what chance gives"
    )
