"""Validation as RL goes on: the reward of greedy answers to slates of users it does not learn from; the best step's weights are kept.

The start counts as step 0: where no step is worth more on users that nothing was learnt from, RL changes nothing.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.rl.checkpoints import write
from stages.rl.params import RlParams
from stages.rl.policy import Policy, all_sums
from stages.rl.rewards.group import Rewarder
from stages.rl.watch.asked import answered, orders_shown, tasks_in_orders
from stages.shared.core.errors import StageError
from stages.shared.core.launch import is_main_process, rank, world_size
from stages.shared.generation.base import Engine
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.slate import Slate

REWARD = "validation_reward"
Curve = Sequence[Mapping[str, float]]


def held_out(slates: Sequence[Slate], params: RlParams) -> tuple[list[Slate], list[Slate]]:
    """The slates to learn from, and rl.validate_slates of other users, drawn by the seed. StageError where nobody would be left."""
    if not params.validate_steps:
        return list(slates), []
    by_user: dict[int, list[Slate]] = {}
    for slate in slates:
        by_user.setdefault(slate.user, []).append(slate)
    users, chosen, asked = sorted(by_user), set[int](), list[Slate]()
    for place in np.random.default_rng([params.seed, 6]).permutation(len(users)):
        if len(asked) >= params.validate_slates:
            break
        chosen.add(users[place])
        asked += by_user[users[place]]
    learnt = [slate for slate in slates if slate.user not in chosen]
    if not learnt:
        raise StageError(
            f"params.yaml: rl.validate_slates: {params.validate_slates} of the {len(slates)} training slates leaves no user to learn from; "
            "lower it"
        )
    return learnt, asked[: params.validate_slates]


class RewardValidation:
    """Every rl.validate_steps steps, after the update. folder: where the best weights lie until the stage ends, best-STEP.pt."""

    def __init__(self, slates: Sequence[Slate], encoded: EncodedLayout, params: RlParams, folder: Path):
        self.params, self.reader, self.folder, self.every = params, encoded.reader, folder, params.validate_steps
        mine = slice(rank(), None, world_size())
        self.asked = len(slates)
        self.tasks = tasks_in_orders(slates[mine], orders_shown(slates, params, 7)[mine], encoded, params)

    def measure(self, policy: Policy, engine: Engine, step: int) -> dict[str, float]:
        """After step `step`; 0: before the first one. {} where it is not its turn. Every process calls it."""
        if not self.every or step % self.every:
            return {}
        with policy.sampling():
            groups = answered(self.tasks, engine, self.reader, Rewarder(self.params), self.params)
        sums = all_sums([sum(sum(group.rewards) for group in groups), sum(group.answers[0].valid for group in groups)])
        return {REWARD: sums[0] / self.asked, "validation_valid": sums[1] / self.asked}

    def keep_best(self, curve: Curve, policy: Policy) -> None:
        """Writes the weights if the last step of the curve, or the start, is the best so far. Every process calls it."""
        step = best_step(curve)
        if step is None or REWARD not in curve[-1] or step != int(curve[-1]["step"]):
            return
        with policy.sampling():  # under ZeRO-3 the weights are whole in there alone
            if is_main_process():
                self.folder.mkdir(parents=True, exist_ok=True)
                partial = self.path(step).with_suffix(".partial")
                write(policy.module.state_dict(), partial)
                os.replace(partial, self.path(step))

    def forget_others(self, curve: Curve) -> None:
        """Call when the checkpoint of this step is written: a run that goes on from an earlier one may still need what was best then."""
        if is_main_process() and (step := best_step(curve)) is not None:
            for path in self.folder.glob("best-*.pt"):
                if path != self.path(step):
                    path.unlink()

    def best(self, curve: Curve) -> Path | None:
        """The weights that are the output; None: the last ones."""
        step = best_step(curve)
        return None if step is None or step == int(curve[-1]["step"]) else self.path(step)

    def path(self, step: int) -> Path:
        return self.folder / f"best-{step}.pt"


def best_step(curve: Curve) -> int | None:
    """Of the highest validation reward, the earlier one at a tie; 0 is the start, None where nothing was measured."""
    measured = [row for row in curve if REWARD in row]
    return int(min(measured, key=lambda row: (-row[REWARD], row["step"]))["step"]) if measured else None


def validation_metrics(curve: Curve, slates: int) -> dict[str, Any]:
    """For RlValidation. curve: from the start, step 0, on."""
    by_step = {int(row["step"]): row for row in curve if REWARD in row}
    best = min(by_step, key=lambda step: (-by_step[step][REWARD], step))
    return {
        "slates": slates,
        "best_step": best,
        "start": by_step[0][REWARD],
        "best": by_step[best][REWARD],
        "last": by_step[max(by_step)][REWARD],
    }
