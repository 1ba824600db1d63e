"""Checkpoints of a step: a run that was killed goes on after it, to the same bits.

One folder a step, checkpoint-N: `rank-R.pt` holds what each process knows alone (its place in the data, surplus groups, generators),
`policy.pt` the weights and the optimizer, or DeepSpeed its own files. An empty file `complete` is the last one written.
"""

import shutil
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.rl.allocation.relift import Demonstration
from stages.rl.params import RlParams, WatchSection
from stages.rl.policy import Policy
from stages.rl.rollouts import Task
from stages.shared.core.errors import StageError
from stages.shared.core.launch import is_main_process, local_rank, rank
from stages.shared.core.resume import RESUME, ResumePoints
from stages.shared.training.checkpoints import keep_newest, newest_checkpoint, run_key, wait_for_all

POLICY = "policy.pt"
LIMITS = {name for name in WatchSection.model_fields if not name.startswith("probe_")}


class RlCheckpoints:
    """`every` 0: nothing is saved or found. In `folder`, beside them, lies what else must last until the stage ends (watch/)."""

    def __init__(self, points: ResumePoints, every: int):
        self.points, self.every, self.folder = points, every, points.folder

    def load(self, policy: Policy) -> dict[str, Any] | None:
        """Puts the newest complete checkpoint into `policy`; returns what this process saved beside it. None where there is none."""
        if not self.every:
            self._clear_folder()  # of what a run that was killed left
            return None
        newest = newest_checkpoint(self.folder, local_rank() == 0)
        if newest is None:
            return None
        if has_engine(policy):
            if policy.forward.load_checkpoint(newest, tag="engine")[0] is None:
                raise StageError(f"{newest}: DeepSpeed cannot read it; remove {self.folder} to train from the beginning")
        else:
            saved = torch.load(Path(newest) / POLICY, map_location="cpu", weights_only=True)
            policy.module.load_state_dict(saved["weights"])
            policy.optimizer.load_state_dict(saved["optimizer"])
        # Written by this stage on this machine, into the project's own folder: groups of rollouts are objects, not tensors.
        own: dict[str, Any] = torch.load(Path(newest) / f"rank-{rank()}.pt", map_location="cpu", weights_only=False)
        torch.set_rng_state(own["torch"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state(own["cuda"])
        return own

    def is_due(self, step: int) -> bool:
        """Whether one is to be saved after `step` steps."""
        return self.every > 0 and step % self.every == 0

    def save(self, step: int, policy: Policy, own: dict[str, Any]) -> None:
        """After `step` steps. own: anything that can be pickled."""
        folder = self.folder / f"checkpoint-{step}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            if has_engine(policy):
                policy.forward.save_checkpoint(str(folder), tag="engine")
            elif is_main_process():
                write({"weights": policy.module.state_dict(), "optimizer": policy.optimizer.state_dict()}, folder / POLICY)
            cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
            write({**own, "torch": torch.get_rng_state(), "cuda": cuda}, folder / f"rank-{rank()}.pt")
        except (OSError, RuntimeError):
            # On a full disk the beginning of a checkpoint is of no use, and in the way of the next try.
            shutil.rmtree(folder, ignore_errors=True)
            raise
        keep_newest(folder, local_rank() == 0)

    def clear(self) -> None:
        """Call when the stage's outputs are written."""
        wait_for_all()
        if not self.every:
            self._clear_folder()
        elif local_rank() == 0:
            self.points.clear()

    def _clear_folder(self) -> None:
        if local_rank() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
        wait_for_all()


def rl_checkpoints(
    params: RlParams, tasks: Sequence[Task], base: Path, traces: Mapping[int, Demonstration], root: Path = RESUME
) -> RlCheckpoints:
    """Of this very run: the same parameters, tasks in the same order, traces, first weights, processor and libraries."""
    if not params.save_steps:
        return RlCheckpoints(ResumePoints("rl", "none", root), 0)  # to hash a large model takes a while
    rules = [task.constraint for task in tasks]
    # How often it is saved, and the limits of what is watched, decide nothing.
    data = (np.array([len(task.prompt), *task.prompt, task.target_rank, *task.shown], dtype=np.int64) for task in tasks)
    # What a constraint closes depends on more than the prompt: on prompt.think_tokens and explanation_tokens.
    bounds = (np.array([one.budget, getattr(one, "explanation", 0), *one.opening], dtype=np.int64) for one in rules)
    worth = (np.array(task.grades, dtype=np.float64) for task in tasks if task.grades)
    taught = (np.array([slate, *one.prompt, *one.response], dtype=np.int64) for slate, one in traces.items())
    key = run_key(params.model_dump_json(exclude={"save_steps": True, "watch": LIMITS}), chain(data, bounds, worth, taught), [base])
    return RlCheckpoints(ResumePoints("rl", key, root), params.save_steps)


def write(content: Any, path: Path) -> None:
    """By a file of ours: torch's own writer says of a full disk that a position in its archive is unexpected."""
    with path.open("wb") as file:
        torch.save(content, file)


def has_engine(policy: Policy) -> bool:
    return hasattr(policy.forward, "save_checkpoint")
