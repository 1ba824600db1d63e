"""Reinforcement learning from the SFT model, or another (rl.start): DAPO with the conditional reward, on training slates only."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count, islice

import numpy as np
import polars as pl
import torch

from stages.rl.dapo import advantages, dapo_loss
from stages.rl.logprobs import response_logprobs
from stages.rl.metrics import RlMetrics
from stages.rl.params import RlParams
from stages.rl.policy import Policy, all_mean, all_sum, open_policy
from stages.rl.rewards import conditional_reward, rank_reward, ungated_reward
from stages.rl.rollouts import CONTRADICTS, Group, Reward, Rollouts, Task, sample_step
from stages.shared.core.errors import StageError
from stages.shared.core.launch import is_main_process, rank, world_size
from stages.shared.core.leakage import check_no_heldout
from stages.shared.core.outputs import DATA, Outputs
from stages.shared.core.params import load_params
from stages.shared.core.progress import tracked
from stages.shared.core.schemas import INTERACTIONS, ITEMS, SIDS, SLATES, read_table
from stages.shared.generation.base import Sampling
from stages.shared.generation.transformers_engine import TransformersEngine
from stages.shared.lm.models import load_model, load_tokenizer, save_model
from stages.shared.lm.packaged import folder_of
from stages.shared.slates.answers import Answer
from stages.shared.slates.candidate_features import read_candidate_features
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.slates.layouts.domain_rules import with_mined_rules
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.slate import Catalog, Slate, load_slates, permuted
from stages.shared.slates.windows import training_windows
from stages.shared.training.trainer import write_curve


def rl(params: RlParams, outputs: Outputs) -> None:
    base = folder_of(params.start)
    options = load_params("prompt", PromptParams)
    slates_table = read_table(DATA / "retrieve/slates.parquet", SLATES)
    slates = load_slates(slates_table, read_candidate_features(DATA / "retrieve/candidate_features.parquet"), "train")
    interactions = read_table(DATA / "ingest/interactions.parquet", INTERACTIONS)
    catalog = Catalog.from_tables(read_table(DATA / "tokenize/sids.parquet", SIDS), read_table(DATA / "ingest/items.parquet", ITEMS))
    leak_check = check_no_heldout(pairs_seen(slates), interactions, "rl")
    # A slate of one candidate has one order, so all its rewards would be equal.
    slates = [slate for slate in training_windows(slates, options.window, params.seed) if len(slate.candidates) > 1]
    if not slates:
        raise StageError("data/retrieve/slates.parquet: no training slate with more than one candidate; nothing can be ranked")

    tokenizer = load_tokenizer(base)
    encoded = EncodedLayout(layout_of(catalog, with_mined_rules(options)), tokenizer)
    tasks = make_tasks(slates, encoded, params)
    policy = open_policy(load_model(base), params)
    engine = TransformersEngine(policy.module, tokenizer.pad_token_id, tokenizer.eos_token_id, params.batch_size)
    reward = choose_reward(params)
    stream = cycle_tasks(tasks, params.seed)
    curve: list[dict[str, float]] = []
    for step in tracked(range(params.steps), "steps", unit="step"):
        # Each (step, rank) draws from its own seed, so ranks sample different completions and a step does not repeat the one before.
        seed = (params.seed * 100_003 + step) * world_size() + rank()
        sampling = Sampling(params.max_tokens, params.temperature, samples=params.group, seed=seed)
        rollouts = sample_step(
            stream,
            engine,
            encoded.reader,
            reward,
            sampling,
            params.prompts,
            params.max_refills,
            params.variance_tolerance,
            params.consistent,
        )
        learning = update(policy, rollouts, params, tokenizer.pad_token_id)
        curve.append({"step": float(step + 1), **{name: all_mean(value) for name, value in (step_metrics(rollouts) | learning).items()}})

    if is_main_process():
        save_model(policy.module, tokenizer, outputs.path("model"))
        write_curve(curve, outputs.path("steps.csv"))
        tail = curve[-max(1, len(curve) // 5) :]
        outputs.metrics(
            {
                "slates": len(tasks),
                "leak_check": leak_check,
                "first_fifth": mean_row(curve[: len(tail)]),
                "last_fifth": mean_row(tail),
                "steps_at_refill_cap": sum(row["kept"] < params.prompts for row in curve),
                **({"prompt_cuts": dict(encoded.cuts)} if encoded.layout.dialogue else {}),
            },
            RlMetrics,
        )


def update(policy: Policy, rollouts: Rollouts, params: RlParams, pad_id: int) -> dict[str, float]:
    """`params.updates` optimizer steps on the kept groups. Ranks without any group still take part, with a loss of zero."""
    groups = rollouts.kept
    # The unit of the token-level mean is the whole step over all ranks; DeepSpeed and DDP average gradients, so the world size divides it.
    tokens = all_sum(sum(len(c.token_ids) for group in groups for c in group.completions)) / world_size()
    totals = {"loss": 0.0, "clipped": 0.0, "logprob_gap": 0.0}
    if tokens == 0:
        return totals
    advantages_PG = advantages(torch.tensor([group.rewards for group in groups])) if groups else torch.zeros(0, params.group)
    # Every rank runs the same number of microbatches, empty ones included: gradients are averaged across ranks at each of them,
    # and a rank that skipped one would leave the others waiting.
    microbatches = max(1, -(-params.prompts // params.micro_prompts))
    for _ in range(params.updates):
        for indices in np.array_split(np.arange(len(groups)), microbatches):
            batch = [groups[i] for i in indices]
            if batch:
                loss, clipped, gap = microbatch_loss(policy, batch, advantages_PG[indices], params, tokens, pad_id)
            else:
                loss, clipped, gap = policy.zero_loss(), 0.0, 0.0
            # The losses are shares of one sum over the step's tokens; policy.step divides by the number of microbatches.
            policy.backward(loss * microbatches)
            totals["loss"] += loss.item() / params.updates
            totals["clipped"] += clipped / microbatches / params.updates
            totals["logprob_gap"] = max(totals["logprob_gap"], gap)
        policy.step()
    return totals


def microbatch_loss(
    policy: Policy, groups: Sequence[Group], advantages_PG: torch.Tensor, params: RlParams, tokens: float, pad_id: int
) -> tuple[torch.Tensor, float, float]:
    """Loss of some groups, share of clipped tokens, and the mean gap between the sampler's and the trainer's log-probabilities."""
    responses = [[completion.token_ids for completion in group.completions] for group in groups]
    with policy.autocast():
        prompts, shared = [group.task.prompt for group in groups], not params.gradient_checkpointing
        logp, mask = response_logprobs(policy.forward, prompts, responses, pad_id, shared)
    # The sampler's own log-probabilities: at the first update the ratio is 1 but for rounding, and `gap` shows how far off it is.
    old = torch.zeros_like(logp)
    for row, completion in enumerate(c for group in groups for c in group.completions):
        old[row, : len(completion.logprobs)] = torch.tensor(completion.logprobs, device=old.device)
    loss = dapo_loss(logp, old, advantages_PG.flatten().to(logp.device), mask, params.clip_low, params.clip_high, tokens)
    gap = float(((logp.detach() - old).abs() * mask).sum() / mask.sum())
    return loss.value, float(loss.clipped), gap


def choose_reward(params: RlParams) -> Reward:
    if params.reward == "random":
        # The control: a reward that says nothing must teach nothing.
        rng = np.random.default_rng(params.seed)
        return lambda answer, target_rank, candidates: float(rng.random())
    function = conditional_reward if params.reward == "conditional" else ungated_reward
    return partial(function, alpha=params.alpha, invalid=params.invalid_reward)


def make_tasks(slates: Sequence[Slate], encoded: EncodedLayout, params: RlParams) -> list[Task]:
    """One a slate, its candidates in a random order if params.shuffle: else the policy could be paid for copying the retriever."""
    rng = np.random.default_rng([params.seed, 1])
    orders = [rng.permutation(len(slate.candidates)).tolist() if params.shuffle else range(len(slate.candidates)) for slate in slates]
    shown = [permuted(slate, order) for slate, order in zip(slates, orders, strict=True)]
    rows = zip(encoded.prompts(shown), encoded.constraints(shown, enforced=params.constrained), slates, orders, strict=True)
    return [Task(prompt, constraint, slate.target_rank, tuple(order)) for prompt, constraint, slate, order in rows]


def cycle_tasks(tasks: Sequence[Task], seed: int) -> Iterator[Task]:
    """Epoch after epoch in random order; of the one stream each rank takes every world_size-th."""
    rng = np.random.default_rng(seed)
    stream = (index for _ in count() for index in rng.permutation(len(tasks)))
    for index in islice(stream, rank(), None, world_size()):
        yield tasks[index]


def step_metrics(rollouts: Rollouts) -> dict[str, float]:
    """What the curve shows of one step, over every group sampled (dropped ones too: the kept ones are a biased sample)."""
    groups = rollouts.sampled
    answers = [(answer, group.task) for group in groups for answer in group.answers]
    lengths = [len(completion.token_ids) for group in groups for completion in group.completions]
    rank_rewards = [rank_reward(answer, task.target_rank, len(task.shown)) for answer, task in answers if answer.valid]
    return {
        "reward": float(np.mean([reward for group in groups for reward in group.rewards])),
        "rank_reward": float(np.mean(rank_rewards)) if rank_rewards else 0.0,
        "valid": float(np.mean([answer.valid for answer, _ in answers])),
        "contradicts": float(np.mean([answer == CONTRADICTS for answer, _ in answers])),
        "identical": float(np.mean([is_identity(answer) for answer, _ in answers])),
        "kept": float(len(rollouts.kept)),
        "refills": float(rollouts.refills),
        "length": float(np.mean(lengths)),
        "entropy": -float(np.mean([p for group in groups for completion in group.completions for p in completion.logprobs])),
    }


def is_identity(answer: Answer) -> bool:
    return answer.order is not None and list(answer.order) == sorted(answer.order)


def mean_row(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0] if name != "step"}


def pairs_seen(slates: Sequence[Slate]) -> pl.DataFrame:
    """Every (user, item) that the training slates hold as history or target."""
    pairs = {(slate.user, item) for slate in slates for item in (*slate.history, slate.candidates[slate.target_rank])}
    return pl.DataFrame(sorted(pairs), schema={"user": pl.Int32, "item": pl.Int32}, orient="row")
