"""All that is seen of a run beside sampling and learning: probe, validation, promotions, kept rollouts; it goes on with a checkpoint."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.rl.params import WITHOUT_RATIO, RlParams
from stages.rl.policy import Policy
from stages.rl.rollouts import Group, Rollouts
from stages.rl.update import step_advantages
from stages.rl.watch.ceiling import entropy_fit
from stages.rl.watch.kept import KeptRollouts
from stages.rl.watch.probe import PositionProbe
from stages.rl.watch.promotions import Moves, moves_of, write_rows
from stages.rl.watch.validation import RewardValidation, validation_metrics
from stages.shared.core.launch import is_main_process
from stages.shared.core.outputs import Outputs
from stages.shared.generation.transformers_engine import TransformersEngine
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.slate import Slate

Row = dict[str, float]
UNCHANGED = "WARNING: on the slates of rl.validate_slates no step was worth more than the start, so the output is the start's weights"


class StepWatch:
    """slates: those that are learnt from; asked: those of validation. folder: what must last until the stage ends lies there."""

    def __init__(self, params: RlParams, slates: Sequence[Slate], asked: Sequence[Slate], encoded: EncodedLayout, folder: Path):
        self.params, self.asked = params, len(asked)
        self.tokenizer = encoded.tokenizer
        self.probe, self.validation = PositionProbe(slates, encoded, params), RewardValidation(asked, encoded, params, folder)
        self.kept = KeptRollouts(folder, encoded.tokenizer, params)
        self.moves: Moves = []
        self.start: Row = {}

    def open(self, policy: Policy, saved: dict[str, Any] | None) -> None:
        """saved: the state of the checkpoint that the run goes on from, if there is one. Every process calls this and what follows."""
        self.policy = policy
        # The policy itself is asked, whatever engine draws the rollouts: its weights are the newest.
        self.engine = TransformersEngine(policy.module, self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, self.params.batch_size)
        if saved:
            self.moves, self.probe.places, self.start = saved["moves"], saved["places"], saved["start"]
        else:
            self.start = self.validation.measure(policy, self.engine, 0)
            self.validation.keep_best(self._from_start([]), policy)

    def before(self, step: int, rollouts: Rollouts) -> Row:
        """Before the update of step `step`, from 1: what the probe measures, if it is its turn."""
        if self.params.keep_rollouts:
            self.kept.add(step, rollouts, advantages_of(rollouts.kept, self.params))
        self.moves += moves_of(step, rollouts.sampled)
        return self.probe.measure(self.policy, self.engine, step)

    def after(self, curve: list[Row]) -> None:
        """After the update: validates, if it is its turn, into the last row of the curve."""
        curve[-1] |= self.validation.measure(self.policy, self.engine, int(curve[-1]["step"]))
        self.validation.keep_best(self._from_start(curve), self.policy)

    def saved(self, curve: Sequence[Row]) -> None:
        """When checkpoints.save has been called."""
        if not self.params.save_steps or int(curve[-1]["step"]) % self.params.save_steps == 0:
            self.validation.forget_others(self._from_start(curve))

    def state(self) -> dict[str, Any]:
        return {"moves": self.moves, "places": self.probe.places, "start": self.start}

    def best(self, curve: Sequence[Row]) -> Path | None:
        """The weights that are the output; None: the last ones."""
        best = self.validation.best(self._from_start(curve))
        if best == self.validation.path(0) and is_main_process():
            print(UNCHANGED, file=sys.stderr, flush=True)
        return best

    def _from_start(self, curve: Sequence[Row]) -> list[Row]:
        return [{"step": 0.0, **self.start}, *curve]

    def write(self, outputs: Outputs, curve: Sequence[Row]) -> dict[str, Any]:
        """The main process: its tables; what of it stands in metrics.json."""
        write_rows(outputs.path("promotions.csv"), "step,before,after,answers", self.moves)
        places = [(step, place, count) for step, counts in self.probe.places for place, count in enumerate(counts)]
        write_rows(outputs.path("positions.csv"), "step,place,answers", places)
        self.kept.write(outputs.path("rollouts.parquet"))
        fitted = entropy_fit([row["entropy"] for row in curve], [row["reward"] for row in curve])
        return {
            **({"validation": validation_metrics(self._from_start(curve), self.asked)} if self.asked else {}),
            **({"entropy_fit": fitted._asdict()} if fitted else {}),
        }


def advantages_of(groups: Sequence[Group], params: RlParams) -> dict[int, list[float]]:
    """id of a group -> of its answers; none where no answer has one. Every process calls it."""
    rows = [row.tolist() for row in step_advantages(groups, params).split([len(group.rewards) for group in groups])]
    has_one = params.objective not in WITHOUT_RATIO and params.credit == "answer"
    return {id(group): row for group, row in zip(groups, rows, strict=True)} if has_one else {}
