"""RL from the SFT model, or another (rl.start): DAPO or another objective, with a verifiable reward, on training slates only."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedModel

from stages.rl.allocation.allocation import Allocation
from stages.rl.allocation.relift import demonstrations
from stages.rl.checkpoints import rl_checkpoints
from stages.rl.engines.choose import open_rollout_engine
from stages.rl.engines.clock import TRAINING, StepClock
from stages.rl.engines.steps import StepRollouts
from stages.rl.metrics import RlMetrics
from stages.rl.params import RlParams
from stages.rl.policy import Policy, all_mean, open_policy
from stages.rl.rates import rate
from stages.rl.rewards.group import Rewarder
from stages.rl.rewards.relevances import with_relevances
from stages.rl.rollouts import Group, Rollouts, Task, sample_step
from stages.rl.update import update
from stages.rl.watch.asked import orders_shown, tasks_in_orders
from stages.rl.watch.seen import StepWatch
from stages.rl.watch.steps import HackWatch, behaviour, require_variance, step_metrics
from stages.rl.watch.validation import held_out
from stages.shared.core.errors import StageError
from stages.shared.core.launch import is_main_process, rank, world_size
from stages.shared.core.leakage import check_no_heldout
from stages.shared.core.outputs import DATA, Outputs
from stages.shared.core.params import load_params
from stages.shared.core.progress import tracked
from stages.shared.core.schemas import INTERACTIONS, ITEMS, SIDS, read_slate_table, read_table
from stages.shared.generation.base import Sampling
from stages.shared.lm.models import load_model, load_tokenizer, save_model
from stages.shared.lm.packaged import folder_of
from stages.shared.slates.candidate_features import read_candidate_features
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.slates.layouts.domain_rules import with_mined_rules
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.slate import Catalog, Slate, load_slates, pairs_seen
from stages.shared.slates.traces import read_traces
from stages.shared.slates.windows import training_windows
from stages.shared.training.checkpoints import wait_for_all
from stages.shared.training.heap import freed_memory_kept
from stages.shared.training.lora import sid_and_layout_ids
from stages.shared.training.trainer import write_curve
from stages.shared.training.zero import shared_out


class Inputs(NamedTuple):
    """slates: of the training split, in windows. leak_check: for metrics.json."""

    catalog: Catalog
    slates: list[Slate]
    leak_check: dict[str, int]


def read_inputs(params: RlParams, options: PromptParams) -> Inputs:
    table = read_slate_table(DATA / "retrieve/slates.parquet")
    slates = load_slates(table, read_candidate_features(DATA / "retrieve/candidate_features.parquet"), "train", options.less_features)
    interactions = read_table(DATA / "ingest/interactions.parquet", INTERACTIONS)
    catalog = Catalog.from_tables(read_table(DATA / "tokenize/sids.parquet", SIDS), read_table(DATA / "ingest/items.parquet", ITEMS))
    leak_check = check_no_heldout(pairs_seen(slates), interactions, "rl")
    slates = with_relevances(slates, params.relevances)
    # A slate of one candidate has one order, so all its rewards would be equal.
    slates = [slate for slate in training_windows(slates, options.window, params.seed) if len(slate.candidates) > 1]
    if not slates:
        raise StageError("data/retrieve/slates.parquet: no training slate with more than one candidate; nothing can be ranked")
    return Inputs(catalog, slates, leak_check)


def rl(params: RlParams, outputs: Outputs) -> None:
    base = folder_of(params.start)
    options = load_params("prompt", PromptParams)
    catalog, slates, leak_check = read_inputs(params, options)
    tokenizer = load_tokenizer(base)
    encoded = EncodedLayout(layout_of(catalog, with_mined_rules(options)), tokenizer)
    slates, asked = held_out(slates, params)
    tasks = make_tasks(slates, encoded, params)
    require_quotes(tasks, params)
    traces = demonstrations(read_traces(), encoded, tasks) if params.allocation.relift_batch else {}
    allocation = Allocation(tasks, params, traces)
    checkpoints = rl_checkpoints(params, tasks, base, traces)
    seen = StepWatch(params, slates, asked, encoded, checkpoints.folder)
    # In float32 whatever the precision of training: a rate of 1e-6 moves no bfloat16 weight.
    with shared_out(params.model_copy(update={"precision": "float32"})):
        model = load_model(base)
    policy = open_policy(model, params, sid_and_layout_ids(tokenizer))
    reference = load_reference(policy, base, params) if params.kl else None
    reward, watch = Rewarder(params), HackWatch(params)
    curve: list[dict[str, float]] = []
    surplus: list[Group] = []
    ahead: Rollouts | None = None
    if saved := checkpoints.load(policy):
        curve, surplus, ahead = saved["curve"], saved["surplus"], saved["ahead"]
        reward.load_state(saved["reward"])
        allocation.load_state(saved["allocation"])
        policy.form, policy.tree_difference = saved["form"]
    seen.open(policy, saved and saved["seen"])
    for row in curve:
        watch.see(row)
    longest = max(len(task.prompt) for task in tasks)
    with freed_memory_kept(), open_rollout_engine(policy, params, base, tokenizer, longest) as engine:

        def draw(step: int) -> Rollouts:
            # Each (step, rank) draws from its own seed, so ranks sample different completions and a step does not repeat the one before.
            seed = step_seed(params, step)
            sampling = Sampling(params.max_tokens, params.temperature, samples=params.group, seed=seed)
            rollouts = sample_step(allocation.stream, engine, encoded.reader, reward, sampling, params, surplus, allocation.rates)
            allocation.see(rollouts.sampled)
            return rollouts

        clock = StepClock()
        drawn = StepRollouts(engine, params, clock, draw, ahead)
        for step in tracked(range(len(curve), params.steps), "steps", unit="step"):
            rollouts = drawn.take(step)
            surplus = rollouts.surplus
            probed = seen.before(step + 1, rollouts)
            policy.set_rate(rate(step, params))
            if params.rollout.log_times:
                wait_for_all()  # here, so that waiting for others counts as idle, not as training
            with clock.measure(TRAINING):
                updated = update(policy, rollouts, params, tokenizer.pad_token_id, reference, step_seed(params, step), step)
                practised = allocation.learn(policy, rollouts, tokenizer.pad_token_id)
            measured = step_metrics(rollouts, params) | updated | behaviour(rollouts) | practised
            measured |= clock.shares() if params.rollout.log_times else {}
            curve.append({"step": float(step + 1), **{name: all_mean(value) for name, value in measured.items()}})
            curve[-1] |= {"lr": rate(step, params), **probed}  # of all processes already
            seen.after(curve)
            if checkpoints.is_due(step + 1):
                own = {"ahead": drawn.drawn_ahead(), "curve": curve, "surplus": surplus, "reward": reward.state(), "seen": seen.state()}
                checkpoints.save(step + 1, policy, {**own, "allocation": allocation.state(), "form": (policy.form, policy.tree_difference)})
            seen.saved(curve)
            watch.see(curve[-1])
        drawn.close()
    require_variance(curve, params)
    policy.finish(seen.best(curve))

    if is_main_process():
        save_model(policy.module, tokenizer, outputs.path("model"))
        write_curve(curve, outputs.path("steps.csv"))
        figures = {"slates": len(tasks), "leak_check": leak_check, **summary(curve, params), **seen.write(outputs, curve)}
        figures |= {"warnings": watch.warnings}
        figures |= {"tree_difference": policy.tree_difference} if policy.tree_difference is not None else {}
        outputs.metrics(figures | ({"prompt_cuts": dict(encoded.cuts)} if encoded.layout.dialogue else {}), RlMetrics)
    checkpoints.clear()


def step_seed(params: RlParams, step: int) -> int:
    return (params.seed * 100_003 + step) * world_size() + rank()


def load_reference(policy: Policy, base: Path, params: RlParams) -> PreTrainedModel:
    """The model that RL began with, frozen, where the policy is; in the precision of training, as each process holds all of it."""
    reference = load_model(base, params.computes_in).requires_grad_(False).eval()
    return reference.to(next(policy.module.parameters()).device)  # type: ignore[arg-type,no-any-return]


def make_tasks(slates: Sequence[Slate], encoded: EncodedLayout, params: RlParams) -> list[Task]:
    """One a slate, its candidates in a random order if params.shuffle: else the policy could be paid for copying the retriever."""
    return tasks_in_orders(slates, orders_shown(slates, params, 1), encoded, params)


def require_quotes(tasks: Sequence[Task], params: RlParams) -> None:
    """StageError where a reward or a filter holds traces against facts that this layout's traces do not quote."""
    asking = {"grounding_weight": params.grounding_weight > 0, "allocation.prof_share": params.allocation.prof_share < 1}
    asking |= {"credit": params.credit == "relevance"}
    for name, is_on in asking.items():
        if is_on and not tasks[0].constraint.quotes:
            off = {"grounding_weight": "0.0", "allocation.prof_share": "1.0", "credit": "answer"}[name]
            raise StageError(
                f"params.yaml: rl.{name}: this prompt's layout has no quoted facts to hold a trace against; set it to {off}, or "
                "prompt.layout to compact and prompt.reasoning to true"
            )
    if params.credit == "relevance" and not tasks[0].constraint.layout.relevances:
        raise StageError(
            "params.yaml: rl.credit: relevance asks for one token a relevance, and this model's tokenizer writes some as several; set it "
            "to answer, or midtrain.model to infra/models/scratch"
        )


def summary(curve: list[dict[str, float]], params: RlParams) -> dict[str, Any]:
    """The first and the last fifth of the steps, for metrics.json."""
    tail = curve[-max(1, len(curve) // 5) :]
    return {
        "first_fifth": mean_row(curve[: len(tail)]),
        "last_fifth": mean_row(tail),
        "steps_at_refill_cap": sum(row["kept"] < params.prompts for row in curve),
    }


def mean_row(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of what was measured at some steps alone, the mean over those."""
    names = dict.fromkeys(name for row in rows for name in row if name != "step")
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
