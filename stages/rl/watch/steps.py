"""The hack watch: what a policy does that has found a way around its reward, measured at every step and held against limits.

Copying the initial ranking, or changing the least of it, earns the format reward for nothing; answers grow long, or all alike.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from stages.rl.distribution import sampler_logprobs
from stages.rl.params import RlParams
from stages.rl.rewards.group import rank_reward
from stages.rl.rewards.orders import is_adjacent_swap, is_identity
from stages.rl.rewards.tokens import grounding
from stages.rl.rollouts import CONTRADICTS, Rollouts
from stages.rl.watch.validation import REWARD
from stages.shared.core.errors import StageError
from stages.shared.core.progress import note

PARTS = ("rank", "format", "grounding", "length", "negatives", "overlong")  # of the reward, with columns of their own
FAULTS = ("unfinished", "malformed", "outside", "duplicate", "missing")  # of the text; beside them there is `contradicts`


def step_metrics(rollouts: Rollouts, params: RlParams) -> dict[str, float]:
    """What the curve shows of one step, over every group sampled (dropped ones too: the kept ones are a biased sample)."""
    groups = rollouts.sampled
    answers = [(answer, group.task) for group in groups for answer in group.answers]
    lengths = [len(completion.token_ids) for group in groups for completion in group.completions]
    rank_rewards = [
        rank_reward(answer.order, task.target_rank, params, task.grades) for answer, task in answers if answer.order is not None
    ]
    drawn = [p for group in groups for one in group.completions for p in sampler_logprobs(one, params.temperature, params.constrained)]
    return {
        "reward": float(np.mean([reward for group in groups for reward in group.rewards])),
        "rank_reward": float(np.mean(rank_rewards)) if rank_rewards else 0.0,
        "valid": float(np.mean([answer.valid for answer, _ in answers])),
        "contradicts": float(np.mean([answer == CONTRADICTS for answer, _ in answers])),
        "identical": float(np.mean([answer.order is not None and is_identity(answer.order) for answer, _ in answers])),
        "kept": float(len(rollouts.kept)),
        "refills": float(rollouts.refills),
        "length": float(np.mean(lengths)),
        "entropy": -float(np.mean(drawn)) if drawn else 0.0,
    }


def behaviour(rollouts: Rollouts) -> dict[str, float]:
    """More columns of the curve: ways around the reward, faults by kind, and the parts of the reward that have a weight."""
    groups = rollouts.sampled
    answers = [(answer, group.task) for group in groups for answer in group.answers]
    orders = [(answer.order, task) for answer, task in answers if answer.order is not None]
    faults = Counter(answer.fault for answer, _ in answers)
    grounded = [
        grounding(one.token_ids, group.task.constraint.quotes, group.task.constraint.layout.think_end)
        for group in groups
        if group.task.constraint.quotes
        for one in group.completions
    ]
    parts = {name: [value for group in groups for value in group.parts.get(name, [])] for name in PARTS}
    return {
        "adjacent_swap": sum(is_adjacent_swap(order) for order, _ in orders) / len(answers),
        "as_shown": sum(order == task.shown for order, task in orders) / len(answers),
        "promotion": float(np.mean([task.target_rank - order.index(task.target_rank) for order, task in orders])) if orders else 0.0,
        **({"grounded": float(np.mean(grounded))} if grounded else {}),
        **{name: faults[name] / len(answers) for name in FAULTS},
        **{f"reward_{name}": float(np.mean(values)) if values else 0.0 for name, values in parts.items()},
    }


class HackWatch:
    """Counts steps in a row beyond each limit; told of every step, in every process of the same figures."""

    def __init__(self, params: RlParams):
        self.params = params
        self.steps_beyond: dict[str, int] = {}
        self.warnings: dict[str, int] = {}  # limit -> step at which it was first said
        self.best_validation = -float("inf")

    def see(self, row: dict[str, float]) -> None:
        """row: one of the curve. StageError where the limits are to stop the run.

        What is not measured at every step counts by the steps at which it is.
        """
        self.best_validation = max(self.best_validation, row.get(REWARD, -float("inf")))
        for name, is_beyond, text in beyond(row, self.params, self.best_validation):
            self.steps_beyond[name] = self.steps_beyond.get(name, 0) + 1 if is_beyond else 0
            if self.steps_beyond[name] < self.params.watch.patience or name in self.warnings:
                continue
            step = int(row["step"])
            unit = {"first_shown": "probes", "validation_fall": "validations"}.get(name, "steps")
            message = f"step {step}: {text}, for {self.steps_beyond[name]} {unit} in a row (rl.watch.{name})"
            if self.params.watch.action == "stop":
                raise StageError(f"rl: {message}. data/rl is as it was; to train on, raise the limit or set rl.watch.action to warn")
            self.warnings[name] = step
            note(f"rl: {message}")


def beyond(row: dict[str, float], params: RlParams, best_validation: float) -> list[tuple[str, bool, str]]:
    """(limit, whether the step is beyond it, in words)."""
    watch = params.watch
    invalid, length = 1 - row["valid"], row["length"] / params.max_tokens
    found = [
        ("identical", row["identical"] > watch.identical, f"{row['identical']:.0%} of the answers copy the initial ranking"),
        ("as_shown", row["as_shown"] > watch.as_shown, f"{row['as_shown']:.0%} of the answers copy the order shown"),
        (
            "adjacent_swap",
            row["adjacent_swap"] > watch.adjacent_swap,
            f"{row['adjacent_swap']:.0%} of the answers swap two neighbours alone",
        ),
        ("invalid", invalid > watch.invalid, f"{invalid:.0%} of the answers are invalid"),
        ("length", length > watch.length, f"answers are {length:.0%} as long as rl.max_tokens allows"),
        ("entropy", row["entropy"] < watch.entropy, f"the entropy of a token is {row['entropy']:.4f} nats"),
    ]
    if "probe_first_shown" in row:
        text = f"{row['probe_first_shown']:.0%} of the answers to the probe put first what the prompt shows first"
        found.append(("first_shown", row["probe_first_shown"] > watch.first_shown, text))
    if watch.validation_fall and REWARD in row:
        fall = best_validation - row[REWARD]
        found.append(("validation_fall", fall > watch.validation_fall, f"the validation reward is {fall:.4f} below its best"))
    return found


def require_variance(curve: Sequence[dict[str, float]], params: RlParams) -> None:
    """StageError for a run in which no group of answers ever had rewards that differ: its model is the one it began with."""
    if any(row["kept"] for row in curve):
        return
    means = {name: float(np.mean([row[name] for row in curve])) for name in ("valid", "identical", CONTRADICTS.fault, *FAULTS)}
    common = max((CONTRADICTS.fault, *FAULTS), key=lambda name: means[name])
    if not any(row["length"] for row in curve):
        reason = "no answer had a token: the engine failed at all of them, see its log"
    elif means["valid"] < 0.5 and common == CONTRADICTS.fault:
        reason = f"{1 - means['valid']:.0%} of the answers were invalid, most of them against their own relevances: train sft longer, "
        reason += "or set rl.consistent to false"
    elif means["valid"] < 0.5:
        reason = f"{1 - means['valid']:.0%} of the answers were invalid, most of them {common}: train sft longer, raise rl.max_tokens, "
        reason += "or set rl.constrained to true"
    elif means["identical"] > 0.5:
        reason = f"{means['identical']:.0%} copied the initial ranking: set rl.shuffle to true, or raise rl.temperature"
    else:
        reason = "the answers to a slate all earn the same: raise rl.temperature or rl.group"
    raise StageError(f"rl: in {len(curve)} steps no slate had answers whose rewards differ, so nothing was learnt. {reason}")
