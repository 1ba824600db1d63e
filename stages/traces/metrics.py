"""data/traces/metrics.json."""

from pydantic import Field

from stages.shared.core.stage_metrics import HeldOutCheck, StageMetrics


class AttemptMetrics(StageMetrics):
    number: int = Field(alias="try", description="number of the attempt, from 1")
    tried: int = Field(description="slates tried: those still open")
    right: int = Field(description="of them, those whose order put the target first, kept or not")
    right_share: float = Field(description="right / tried")


class ChanceMetrics(StageMetrics):
    blind_guess_at_cap: float = Field(description="chance that a random guess puts the target first within all attempts")
    blind_guess_over_tries_used: float = Field(description="the same over the attempts that each slate took to its first kept trace")
    blind_guess_at_cap_with_rule: float = Field(description="the same at the cap, under the rule against luck")
    blind_guess_verified: float = Field(description="blind_guess_at_cap of a guess that must be confirmed (traces.verify_shuffles)")
    blind_guess_verified_with_rule: float = Field(description="the same under the rule against luck")
    copying_incoming: float = Field(description="share of slates whose target is first in the initial ranking already")
    copying_shown_at_cap: float = Field(description="chance that one who repeats the order shown puts the target first within all attempts")
    copying_shown_verified: float = Field(description="the same where it must be confirmed in other orders")
    excess_over_blind_guess_with_rule: float = Field(description="accepted_share minus blind_guess_verified_with_rule")
    first_try: float = Field(description="share right at the first attempt")
    first_try_excess: float = Field(description="first_try minus 1 / candidates")


class SamplingMetrics(StageMetrics):
    labelled: int = Field(description="slates that the teacher was asked about: those later than the first time fold")
    accepted: int = Field(description="slates with a kept trace")
    accepted_share: float = Field(description="accepted / labelled")
    accepted_unverified_share: float = Field(description="share of slates that would have a kept trace without verification")
    kept_traces: int = Field(description="rows of traces.parquet")
    refused_as_luck: int = Field(description="right orders refused, because the features do not support the target")
    supported_share: float = Field(description="share of slates whose target the features support (traces.max_noise_rank)")
    repeated: int = Field(description="right orders refused, because the same trace was kept before")
    unverified: int = Field(description="right orders refused, because the teacher did not repeat them in other orders of the candidates")
    asked_again: int = Field(description="questions of the verification (traces.verify_shuffles)")
    faults: dict[str, int] = Field(description="fault -> answers of the teacher that could not be read")
    mean_tries_to_first: float = Field(description="mean attempts to the first kept trace; all attempts where there is none")
    by_try: list[AttemptMetrics] = Field(description="one entry an attempt")
    chance: ChanceMetrics = Field(description="what chance and copying would reach")


class NoiseMetrics(StageMetrics):
    """Empty if no kept trace has relevance levels."""

    spearman: float | None = Field(None, description="mean rank correlation with the noise-free levels within a slate")
    changed_words: float | None = Field(None, description="mean distance from the noise-free levels, in levels")
    same_first: float | None = Field(None, description="share of traces whose first candidate, the target, is first without noise too")


class TargetMetrics(StageMetrics):
    recall_at_1: float = Field(alias="recall@1", description="share of targets ranked first")
    ndcg_at_5: float = Field(alias="ndcg@5", description="mean NDCG@5")


class ScorerMetrics(StageMetrics):
    scorer: TargetMetrics = Field(description="the noise-free scorer of the teacher")
    incoming: TargetMetrics = Field(description="the initial ranking")


class FoldScorerMetrics(ScorerMetrics):
    fold: int = Field(description="time fold, from 1; its scorer was fitted on the folds before it")
    slates: int = Field(description="slates of the fold")


class OutOfTimeMetrics(ScorerMetrics):
    by_fold: list[FoldScorerMetrics] = Field(description="the same for each time fold")


class SoftMetrics(StageMetrics):
    """The reward is NDCG of the target in the proposal's order."""

    proposals: int = Field(description="different traces that could be read and hold the checks")
    mean_reward: float = Field(description="their mean reward")
    mean_reward_kept: float = Field(description="mean reward of the kept traces")


class RepairMetrics(StageMetrics):
    continued: int = Field(description="tries that went on from the last right step of a refused trace")
    kept: int = Field(description="kept traces that came of such a try")


class StudentFitMetrics(StageMetrics):
    mean_logprob: float = Field(description="mean over accepted traces of the mean log-probability of a trace's tokens under the student")
    bound: float = Field(description="its quantile at traces.student_fit.drop_below")
    improbable: int = Field(description="traces below it, which were dropped, or weigh less")


class EndpointMetrics(StageMetrics):
    answers: int = Field(description="answers of the server, those kept from an earlier run among them")
    failed: dict[str, int] = Field(description="fault -> requests given up after all tries; their slates were skipped")
    prompt_tokens: int = Field(description="tokens of all prompts, as the server counts them")
    completion_tokens: int = Field(description="tokens of all completions")
    cost: float = Field(description="of these, at input_price and output_price")


class TracesMetrics(StageMetrics):
    mode: str = Field(description="traces.mode")
    teacher: str = Field(description="traces.teacher")
    training_slates: int = Field(description="training slates that hold their target")
    sampling: SamplingMetrics = Field(description="what the teacher's answers came to")
    noise: NoiseMetrics = Field(description="how far the sampled relevance levels of kept traces lie from the noise-free ones")
    out_of_time: OutOfTimeMetrics = Field(description="the scorer on slates later than those it was fitted on")
    leak_check: HeldOutCheck = Field(description="counts of the leak check")
    endpoint: EndpointMetrics | None = Field(None, description="a teacher behind an endpoint only: what it was asked and what that cost")
    soft: SoftMetrics | None = Field(None, description="mode soft only: rewards before and after acceptance")
    repair: RepairMetrics | None = Field(None, description="mode repair only: what was repaired")
    student_fit: StudentFitMetrics | None = Field(None, description="with traces.student_fit.drop_below: what the student makes of them")
