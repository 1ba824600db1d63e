"""data/rl/metrics.json; data/rl/steps.csv has the same figures of every step, those of probes and validations where they were made."""

from pydantic import Field

from stages.shared.core.stage_metrics import HeldOutCheck, StageMetrics


class RlStepMetrics(StageMetrics):
    """Means over some steps, and over all processes. Answers: every one sampled, dropped groups included."""

    reward: float = Field(description="mean reward of an answer")
    rank_reward: float = Field(description="mean of rl.rank_reward, of valid answers")
    valid: float = Field(description="share of answers that the reward takes for valid")
    contradicts: float = Field(description="share of permutations against the relevances of their own trace (counted with rl.consistent)")
    identical: float = Field(description="share of answers that are the initial ranking again")
    kept: float = Field(description="groups that the update learns from: those whose rewards vary")
    refills: float = Field(description="extra rounds of sampling, as too few groups had rewards that vary")
    length: float = Field(description="tokens of an answer")
    entropy: float = Field(description="minus the mean log-probability of a sampled token, in the distribution it was drawn from, nats")
    loss: float = Field(description="of rl.objective")
    grad_norm: float = Field(description="norm of the gradient before it is cut to 1; mean of the step's updates")
    clipped: float = Field(description="share of tokens whose ratio was clipped")
    logprob_gap: float = Field(description="largest mean gap between the sampler's and the trainer's log-probabilities, before an update")
    truncated: float = Field(description="share of tokens whose importance weight reached rl.importance_cap")
    kl: float = Field(description="KL to the frozen SFT model, nats a token, before an update (with rl.kl)")
    learnt: float = Field(description="answers that the update learns from")
    adjacent_swap: float = Field(description="share of answers that are the initial ranking but for two neighbours")
    as_shown: float = Field(description="share of answers in the order in which the prompt shows the candidates")
    promotion: float = Field(description="places that the target rose, mean over valid answers")
    grounded: float | None = Field(None, description="share of candidates whose facts are quoted word by word, where traces quote")
    unfinished: float = Field(description="share of answers without an end")
    malformed: float = Field(description="share of answers that are no list of names")
    outside: float = Field(description="share of answers that name what is not in the slate")
    duplicate: float = Field(description="share of answers that name a candidate twice")
    missing: float = Field(description="share of answers that leave a candidate out")
    reward_rank: float = Field(description="mean of rl.rank_reward, an invalid answer as rl.invalid_reward")
    reward_format: float = Field(description="mean of 1 for a valid answer, 0 for others (with rl.alpha)")
    reward_grounding: float = Field(description="mean share of candidates whose facts are quoted (with rl.grounding_weight)")
    reward_length: float = Field(description="mean brevity, 0 in groups that are not all right (with rl.length_weight)")
    reward_negatives: float = Field(description="mean punishment of misses by their likelihood (with rl.negatives_weight)")
    reward_overlong: float = Field(description="mean punishment of long answers (with rl.overlong: soft)")
    learnt_tokens: float | None = Field(None, description="tokens that the update learns from (rl.allocation.d3s_tokens)")
    prof_dropped: float | None = Field(None, description="share of answers that PROF takes out of their groups (rl.allocation.prof_share)")
    budget_most: float | None = Field(None, description="most answers that Knapsack gives a slate (rl.allocation.knapsack_most)")
    target_place: float | None = Field(None, description="mean place of the target in slates that DUMP draws, from 1 (rl.allocation.dump)")
    sft_traces: float | None = Field(None, description="traces of ReLIFT's SFT step; 0 = none was taken (rl.allocation.relift_batch)")
    sft_loss: float | None = Field(None, description="mean of -log p(token) of these traces")
    lr: float = Field(description="learning rate")
    probe_valid: float | None = Field(None, description="share of the probe's answers that are valid (with rl.watch.probe_steps)")
    probe_first_shown: float | None = Field(
        None, description="share of these that put first what the prompt shows first; 1 / K without bias"
    )
    probe_place: float | None = Field(None, description="mean place in the prompt of their first choice, 0 first, 1 last; .5 without bias")
    probe_first_changed: float | None = Field(None, description="share of pairs of orders of one slate whose first choices differ")
    validation_reward: float | None = Field(None, description="mean reward of greedy answers to held-out users (with rl.validate_steps)")
    validation_valid: float | None = Field(None, description="share of these answers that are valid")
    share_generating: float | None = Field(None, description="share of a process's time in which it generates (with rl.rollout.log_times)")
    share_training: float | None = Field(None, description="share in which it learns; the two overlap with rl.rollout.ahead")
    share_idle: float | None = Field(None, description="share in neither: waiting for other processes, or weights on their way")


class RlValidation(StageMetrics):
    slates: int = Field(description="slates of users that nothing is learnt from")
    best_step: int = Field(description="the step whose weights are the output: highest validation reward, earlier at a tie; 0 = start")
    start: float = Field(description="validation reward before the first step, which is chosen where no step is worth more")
    best: float = Field(description="validation reward at best_step")
    last: float = Field(description="validation reward after the last step")


class RlEntropyFit(StageMetrics):
    a: float = Field(description="of R = -a e^H + b, over the steps: H entropy, R reward")
    b: float = Field(description="of the same")
    ceiling: float = Field(
        description="b - a: the reward where no entropy is left; says nothing where a is negative, or little is explained"
    )
    explained: float = Field(description="share of the reward's variance that the curve explains (R squared)")


class RlMetrics(StageMetrics):
    slates: int = Field(description="training slates with more than one candidate")
    first_fifth: RlStepMetrics = Field(description="means over the first fifth of the steps")
    last_fifth: RlStepMetrics = Field(description="means over the last fifth; keys as of first_fifth")
    steps_at_refill_cap: int = Field(description="steps that learnt from fewer groups than rl.prompts, as rl.max_refills was reached")
    validation: RlValidation | None = Field(None, description="of rl.validate_steps")
    entropy_fit: RlEntropyFit | None = Field(None, description="what reward is left to gain by spending entropy (watch/ceiling.py)")
    warnings: dict[str, int] = Field(description="limits of rl.watch that were passed, and the step at which each was")
    prompt_cuts: dict[str, int] | None = Field(
        None, description="layout chat: what prompt.max_tokens cut: prompts, titles, items of history, and prompts too long all the same"
    )
    tree_difference: float | None = Field(
        None,
        description="rl.shared_prefix: tree: mean difference of the first group's log-probabilities from those of the plain form; above "
        "1e-4 (float32) or 0.05 (bfloat16) the run went on in the plain form",
    )
    leak_check: HeldOutCheck = Field(description="counts of the leak check")
