"""Parameters of reinforcement learning."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from stages.rl.allocation.params import AllocationSection
from stages.shared.core.launch import TrainingSection
from stages.shared.core.model_folder import ModelFolder, TextFile
from stages.shared.core.params import Section
from stages.shared.training.params import LoraSection

TARGETS = "data/retrieve/slates.parquet"  # which candidate was taken
NORMALISES_ITSELF = ("dr_grpo", "lite_ppo")  # objectives that are their scale of advantages, beside the loss of another
SCORES_ANSWERS = ("gspo", "disco", "lipo")  # objectives with one score an answer, of all its tokens
WITHOUT_RATIO = ("disco", "lipo")  # objectives without an importance ratio or advantages


class WatchSection(Section):
    """Limits on what a policy does that has found a way around its reward (watch.py)."""

    action: Literal["warn", "stop"] = Field("warn", description="stop: the run fails with the reason; what it saved stays")
    patience: int = Field(3, ge=1, description="steps in a row beyond a limit before anything is said")
    identical: float = Field(0.9, ge=0, le=1, description="most copies of the initial ranking, share of answers; 1 = no limit")
    as_shown: float = Field(0.9, ge=0, le=1, description="most answers in the order in which the prompt shows the candidates; 1 = no limit")
    adjacent_swap: float = Field(0.9, ge=0, le=1, description="most answers that swap two neighbours alone; 1 = no limit")
    invalid: float = Field(0.9, ge=0, le=1, description="most invalid answers; 1 = no limit")
    length: float = Field(0.95, ge=0, le=1, description="greatest mean length, share of max_tokens; 1 = no limit")
    entropy: float = Field(0.005, ge=0, description="least entropy, nats a token; 0 = no limit")
    first_shown: float = Field(
        0.9, ge=0, le=1, description="most answers to the probe that put first what the prompt shows first; 1 = no limit"
    )
    validation_fall: float = Field(0.0, ge=0, description="greatest fall of the validation reward below its best; 0 = no limit")
    probe_steps: int = Field(0, ge=0, description="steps between probes of position bias: slates asked in several orders; 0 = none")
    probe_slates: int = Field(32, ge=1, description="slates of a probe, the same ones each time")
    probe_orders: int = Field(4, ge=2, description="orders in which each is shown")


class RolloutSection(Section):
    """What draws the rollouts (engines/)."""

    engine: Literal["transformers", "vllm"] = Field(
        "transformers",
        description="transformers: on the policy's own weights; vllm: a process beside each training process, on its GPU, which gets the "
        "weights before each step",
    )
    ahead: bool = Field(
        False,
        description="draw the next step's rollouts while this step is learnt from, with weights one step old; the engine, of either kind, "
        "then is a process of its own",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of the weights in an engine process")
    kv_cache_gb: float = Field(1.0, gt=0, description="memory for keys and values of one engine (vllm), on a GPU or a CPU")
    log_times: bool = Field(False, description="log the shares of time spent generating, training and idle; two runs differ in them")

    @property
    def beside(self) -> bool:
        """Whether the engine is a process of its own."""
        return self.engine == "vllm" or self.ahead


class RlParams(TrainingSection):
    start: ModelFolder = Field("data/sft/model", description="the folder that learning starts from; data/distil/model: of distil")
    steps: int = Field(30, ge=1, description="rollout batches, one optimizer step each unless updates > 1")
    prompts: int = Field(12, ge=1, description="groups kept a step and process")
    group: int = Field(8, ge=2, description="G, rollouts a prompt")
    updates: int = Field(1, ge=1, description="optimizer steps on each batch of rollouts")
    optimizer: Literal["adamw", "sgd"] = Field(
        "adamw",
        description="sgd: with momentum 0.9; its steps are as long as the gradient, so what a few rollouts say by chance of every weight "
        "moves few of them. Its lr is some thousand times AdamW's. DeepSpeed brings its own AdamW",
    )
    lr: float = Field(1e-4, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="of the rate after the warmup (rates.py)")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the steps over which the rate rises to lr")
    objective: Literal["dapo", "grpo", "dr_grpo", "lite_ppo", "gspo", "clip_cov", "kl_cov", "disco", "lipo"] = Field(
        "dapo", description="stages/rl/objectives, a file each"
    )
    clip_low: float = Field(0.2, gt=0, description="eps_low of DAPO")
    clip_high: float = Field(0.28, gt=0, description="eps_high of DAPO (clip-higher)")
    importance_cap: float = Field(
        0.0,
        ge=0,
        description="largest weight min(p of the trainer / p of the sampler, cap) of a token; 0 = the sampler's p is the old one, "
        "as where one engine gives both",
    )
    kl: float = Field(0.0, ge=0, description="weight of the KL to the frozen SFT model, which is then held beside the policy; 0 = none")
    cov_share: float = Field(2e-4, gt=0, lt=1, description="clip_cov, kl_cov: share of the tokens that are chosen, at least one")
    cov_low: float = Field(1.0, description="clip_cov: least covariance of a token that may be chosen")
    cov_high: float = Field(5.0, description="clip_cov: greatest one")
    cov_kl: float = Field(1.0, ge=0, description="kl_cov: weight of the KL of a chosen token to the step's first policy")
    disco_tau: float = Field(0.1, gt=0, description="disco: temperature over wrong answers; small = the likeliest one alone")
    disco_beta: float = Field(1000.0, ge=0, description="disco: weight of the penalty on a KL above disco_delta")
    disco_delta: float = Field(1e-4, ge=0, description="disco: KL to the step's first policy that is free, nats a token")
    lipo_beta: float = Field(0.1, gt=0, description="lipo: score of an answer a nat of its log-probability")
    credit: Literal["answer", "relevance"] = Field(
        "answer",
        description="answer: every token has the advantage of its answer; relevance: every level of each candidate's relevance has that of "
        "what the answer would have earned with it (credit.py)",
    )
    validity_weight: float = Field(
        0.0, ge=0, description="credit: relevance: weight of the advantage of an answer's other tokens, which make it valid or not"
    )
    sorting_nll: float = Field(
        0.0,
        ge=0,
        description="credit: relevance: weight of the cross-entropy of the answer that the trace's own relevances ask for "
        "(objectives/lessons.py); 0 = none",
    )
    quoting_nll: float = Field(
        0.0,
        ge=0,
        description="credit: relevance: weight of the cross-entropy of the facts that a trace has to quote from the prompt "
        "(objectives/lessons.py); 0 = none",
    )
    positive_nll: float = Field(
        0.0,
        ge=0,
        description="weight of the cross-entropy of right answers, beside the objective (objectives/positive.py); under credit: relevance "
        "of all that valid answers have beside their relevances; 0 = none",
    )
    alpha: float = Field(0.2, ge=0, description="weight of the format reward")
    reward: Literal["conditional", "strict", "gated", "sum", "gdpo", "ungated", "random"] = Field(
        "conditional", description="how its parts are put together (rewards/combine.py); sum, ungated (the same) and random are ablations"
    )
    rank_reward: Literal["promotion", "ndcg", "auc", "log_sigmoid"] = Field(
        "promotion", description="of an order: places that the target rose / K; gain in NDCG; in AUC; log sigmoid of the gain in NDCG"
    )
    relevances: TextFile = Field(
        TARGETS,
        description=f"what the rank reward counts: {TARGETS} = the target, or logged grades; else a table of `slate` and `relevances`, of "
        "each candidate by initial rank (rewards/relevances.py). dvc.yaml takes this value as a dependency",
    )
    log_sigmoid_scale: float = Field(0.1, gt=0, description="gain in NDCG that counts as 1 under log_sigmoid")
    grounding_weight: float = Field(0.0, ge=0, description="of the share of candidates whose facts the trace quotes word by word")
    length_weight: float = Field(0.0, ge=0, description="of brevity, paid in groups that are all right alone")
    negatives_weight: float = Field(
        0.0, ge=0, description="of ReRe's punishment of misses, the likeliest most, in groups of which an answer puts the target first"
    )
    overlong: Literal["penalise", "filter", "soft"] = Field(
        "penalise",
        description="an answer cut at max_tokens is invalid, and learnt from as such; filter: it is left out of the loss; "
        "soft: beyond max_tokens - overlong_buffer length costs up to 1 more",
    )
    overlong_buffer: int = Field(32, ge=1, description="tokens over which the soft punishment grows")
    invalid_reward: float = Field(-1.0, le=0, description="reward of an output that is no permutation, or that contradicts its trace")
    consistent: bool = Field(True, description="an answer against the relevances of its own trace counts as invalid")
    constrained: bool = Field(
        False, description="roll out under constrained decoding (stages/shared/slates/constraint.py); as evaluate.constrained"
    )
    shuffle: bool = Field(True, description="show each slate's candidates in a random order")
    temperature: float = Field(1.0, gt=0)
    max_tokens: int = Field(224, ge=16, description="longest completion")
    variance_tolerance: float = Field(1e-6, ge=0, description="groups whose rewards' standard deviation is at most this teach nothing")
    max_refills: int = Field(2, ge=0, description="extra rollout rounds to fill a step; then it trains on what there is")
    keep_surplus: bool = Field(
        False, description="groups beyond `prompts` are learnt from in the next step; processes that have enough go on while others refill"
    )
    batch_size: int = Field(96, ge=1, description="rollouts generated at once")
    rollout: RolloutSection = RolloutSection()
    micro_prompts: int = Field(4, ge=1, description="groups in one forward and backward pass")
    save_steps: int = Field(0, ge=0, description="steps between checkpoints that a killed run goes on from; 0 = none, it starts again")
    validate_steps: int = Field(
        0,
        ge=0,
        description="steps between validations, greedy answers to slates of held-out users, a divisor of steps; the weights of the best "
        "reward are the output, be they the start's; 0 = none, the last step's are",
    )
    validate_slates: int = Field(128, ge=1, description="training slates of these users, of whom nothing is then learnt")
    keep_rollouts: float = Field(0.0, ge=0, le=1, description="share of the groups whose rollouts are kept for gr2 rollouts")
    watch: WatchSection = WatchSection()
    shared_prefix: Literal["tree", "cache", "none"] = Field(
        "cache",
        description="how an update reads a prompt: once a group, in a row with its answers (tree) or to a cache, or once an answer (none)",
    )
    logprob_chunk: int = Field(
        0, ge=0, description="answer tokens whose logits exist at a time, recomputed in the backward pass; 0 = all of a pass"
    )
    lora: LoraSection = LoraSection()
    allocation: AllocationSection = AllocationSection()

    @model_validator(mode="after")
    def a_cache_is_kept_whole(self) -> Self:
        if self.shared_prefix == "cache" and (self.gradient_checkpointing or self.logprob_chunk):
            asked = "gradient_checkpointing" if self.gradient_checkpointing else "logprob_chunk"
            raise ValueError(f"shared_prefix: cache: {asked} recomputes what a cache would have to keep; set shared_prefix to tree")
        return self

    @model_validator(mode="after")
    def processes_have_a_way_to_meet(self) -> Self:
        # Here, not when the policy is opened: that is in the children of torchrun, whose errors come once each, between tracebacks.
        if self.all_processes > 1 and not self.deepspeed:
            raise ValueError(f"processes: {self.all_processes} processes need deepspeed, e.g. infra/deepspeed/zero2.json")
        return self

    @model_validator(mode="after")
    def the_last_step_is_validated(self) -> Self:
        if self.validate_steps and self.steps % self.validate_steps:
            raise ValueError(f"validate_steps: {self.validate_steps} must divide steps: {self.steps}, so that the last step is measured")
        return self

    @model_validator(mode="after")
    def do_not_contradict_each_other(self) -> Self:
        if problem := next((text for text, is_one in self._contradictions() if is_one), None):
            raise ValueError(problem)
        return self

    def _contradictions(self) -> list[tuple[str, bool]]:
        weighted = self.grounding_weight > 0 or self.length_weight > 0 or self.negatives_weight > 0
        # log sigmoid(-1 / scale), the loss of all NDCG there is.
        worst = -1 / self.log_sigmoid_scale - math.log1p(math.exp(-1 / self.log_sigmoid_scale))
        return [
            (
                "reward: random says nothing of an answer, so grounding_weight, length_weight, negatives_weight and overlong: soft must "
                "be off",
                self.reward == "random" and (weighted or self.overlong == "soft"),
            ),
            (
                "reward: gdpo normalises each part of the reward and needs two: set alpha, or the weight of grounding, length or "
                "negatives, above 0",
                self.reward == "gdpo" and not weighted and self.alpha == 0 and self.overlong != "soft",
            ),
            (
                f"objective: {self.objective} is a scale of advantages, and reward: gdpo is another; take objective dapo, grpo or gspo",
                self.reward == "gdpo" and self.objective in NORMALISES_ITSELF,
            ),
            (
                f"objective: {self.objective} has no advantages, which reward: gdpo changes alone; take reward sum",
                self.reward == "gdpo" and self.objective in WITHOUT_RATIO,
            ),
            (
                f"objective: {self.objective} has no importance ratio to correct; set importance_cap to 0.0",
                self.importance_cap > 0 and self.objective in WITHOUT_RATIO,
            ),
            (
                f"objective: {self.objective} compares all answers of a group, and overlong: filter leaves some out; set it to penalise",
                self.overlong == "filter" and self.objective in WITHOUT_RATIO,
            ),
            (
                "lora.dropout: what draws answers and what learns from them must be one policy, and dropout makes them two; set it to 0.0",
                self.lora.rank > 0 and self.lora.dropout > 0,
            ),
            (
                "objective: disco has a constraint of its own on the KL, disco_delta; set kl to 0.0",
                self.kl > 0 and self.objective == "disco",
            ),
            (
                "positive_nll asks which answers are right, and reward: random does not know; set it to 0.0",
                self.reward == "random" and self.positive_nll > 0,
            ),
            (
                "objective: disco asks which answers are right, and reward: random does not know; take dapo",
                self.reward == "random" and self.objective == "disco",
            ),
            (
                "reward: gated pays a copy of the initial ranking alpha, and under rank_reward: log_sigmoid no order earns more: "
                "copying would be best; take conditional or sum",
                self.reward == "gated" and self.rank_reward == "log_sigmoid",
            ),
            (
                f"invalid_reward {self.invalid_reward}: under rank_reward: log_sigmoid the worst order earns {worst:.1f}, so that "
                f"no order at all would be better; set it to {worst:.1f} or less, or raise log_sigmoid_scale",
                self.rank_reward == "log_sigmoid" and self.invalid_reward > round(worst, 1),
            ),
            (
                "reward: random is a control, and validate_steps would choose its output by the true reward; set it to 0",
                self.reward == "random" and self.validate_steps > 0,
            ),
            ("watch.validation_fall: nothing is validated; set validate_steps", self.watch.validation_fall > 0 and not self.validate_steps),
            (
                f"objective: {self.objective} has no importance ratio, and rollout.ahead draws with weights one step old; set it to false",
                self.rollout.ahead and self.objective in WITHOUT_RATIO,
            ),
            (
                "keep_surplus: processes that refill wait for each other, which rollout.ahead cannot while they learn; turn one off",
                self.rollout.ahead and self.keep_surplus,
            ),
            (f"cov_low {self.cov_low} is above cov_high {self.cov_high}: no token lies between", self.cov_low > self.cov_high),
            (
                f"overlong_buffer {self.overlong_buffer} is not below max_tokens {self.max_tokens}: every answer would be too long",
                self.overlong == "soft" and self.overlong_buffer >= self.max_tokens,
            ),
            (
                "optimizer: sgd: DeepSpeed brings its own AdamW; take adamw, or set deepspeed to ''",
                self.optimizer == "sgd" and bool(self.deepspeed),
            ),
            *self._contradictions_of_credit(),
            *self._contradictions_of_allocation(),
        ]

    def _contradictions_of_credit(self) -> list[tuple[str, bool]]:
        is_on = self.credit == "relevance"
        return [
            (
                f"credit: relevance has advantages and a mean of its own, and objective: {self.objective} has others; take dapo",
                is_on and self.objective != "dapo",
            ),
            (
                f"credit: relevance asks what an order earns, which reward: {self.reward} does not say; set it to answer",
                is_on and self.reward in ("random", "gdpo"),
            ),
            ("validity_weight: there is such an advantage under credit: relevance alone", self.validity_weight > 0 and not is_on),
            *(
                (f"{name}: what is right in its place is known under credit: relevance alone", getattr(self, name) > 0 and not is_on)
                for name in ("sorting_nll", "quoting_nll")
            ),
            (
                "importance_cap: under credit: relevance no token is weighed but what validity_weight pays for; set it to 0.0",
                is_on and self.importance_cap > 0 and self.validity_weight == 0,
            ),
            (
                "credit: relevance takes the answer for what its relevances sort to; set consistent to true",
                is_on and not self.consistent,
            ),
            (
                "credit: relevance pays for rank and format alone; set grounding_weight, length_weight and negatives_weight to 0.0, and "
                "overlong to penalise or filter",
                is_on and (self.grounding_weight + self.length_weight + self.negatives_weight > 0 or self.overlong == "soft"),
            ),
            (
                "credit: relevance learns from all answers of a group and all their tokens; set allocation.d3s_share, d3s_tokens and "
                "prof_share to 1.0",
                is_on and min(self.allocation.d3s_share, self.allocation.d3s_tokens, self.allocation.prof_share) < 1,
            ),
        ]

    def _contradictions_of_allocation(self) -> list[tuple[str, bool]]:
        allocation = self.allocation
        asks = {"prof_share": allocation.prof_share < 1, "knapsack_most": allocation.knapsack_most > 0}
        asks["relift_batch"] = allocation.relift_batch > 0
        asking = ", ".join(name for name, is_on in asks.items() if is_on)
        return [
            (
                f"objective: {self.objective} compares the answers of whole groups of one size; it goes with none of allocation.d3s_share, "
                "prof_share and knapsack_most: take dapo, or set them to 1.0, 1.0 and 0",
                self.objective in WITHOUT_RATIO and allocation.changes_groups,
            ),
            (
                f"objective: {self.objective} scores an answer by all its tokens, of which allocation.d3s_tokens keeps some: take dapo, or "
                "set it to 1.0",
                self.objective in SCORES_ANSWERS and allocation.d3s_tokens < 1,
            ),
            (
                f"reward: random is no matter of right answers, which allocation ({asking}) asks for; set it to its default",
                self.reward == "random" and bool(asking),
            ),
            *allocation.contradictions(self.group),
        ]
