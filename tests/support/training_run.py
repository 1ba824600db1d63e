"""One small training run in several processes: `run(folder, 2, **parameters)` forks itself off as often."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, TrainerCallback

from stages.shared.core.launch import is_main_process, rank, world_size
from stages.shared.generation.base import Sampling
from stages.shared.generation.transformers_engine import TransformersEngine
from stages.shared.lm.encoding import WeightedExample
from stages.shared.training import trainer
from stages.shared.training.params import OptimizerSection
from stages.shared.training.trainer import train_supervised
from stages.shared.training.validation import RankingCheck, RankingSums
from tests.support import forked_processes
from tests.support.tiny_models import tiny_model

ROOT = Path(__file__).parents[2]
VOCABULARY, PAD = 64, 0
Trained = tuple[dict[str, torch.Tensor], list[dict[str, float]]]  # weights by name, curve
SMALL: dict[str, Any] = {"steps": 2, "batch_size": 1, "lr": 1e-2, "warmup": 0.0, "log_every": 1, "threads": 1}


def uneven_rows(count: int) -> list[WeightedExample]:
    """Sequences that count upwards, of very different lengths and weights: a mean of means is not the mean."""
    rng = np.random.default_rng(3)
    rows = []
    for index in range(count):
        length = 6 + 9 * (index % 4)
        start = int(rng.integers(2, 20))
        rows.append(WeightedExample([start + step for step in range(length)], [0.0, *[0.25 + index % 3] * (length - 1)]))
    return rows


class Killed(TrainerCallback):
    """kill -9 of this process at the end of a step, before anything of it is saved."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def counting(prompts: int) -> RankingCheck:
    """In the place of slates: how many of eight tokens that the model writes greedily count on from the one before."""
    own = [row.ids[: 3 + place] for place, row in enumerate(uneven_rows(prompts))][rank() :: world_size()]

    def answer(model: PreTrainedModel) -> RankingSums:
        # Under ZeRO one process may write more than another, so none may wait for the others in between.
        found = TransformersEngine(model, PAD, 1, 2).generate(own, Sampling(4 + 4 * rank())) if own else []
        written = [[prompt[-1], *one.token_ids[:4]] for prompt, (one,) in zip(own, found, strict=True)]
        right = [after == before + 1 for ids in written for before, after in zip(ids, ids[1:], strict=False)]
        return RankingSums(sum(right) / 4, sum(len(ids) == 5 for ids in written), len(own))

    return RankingCheck(answer)


def trained(
    params: OptimizerSection, rows: int, checkpoints: Path | None = None, held_out: int = 0, ranked: int = 0
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """ranked: prompts of `counting`."""
    model = tiny_model(VOCABULARY)
    ranking = counting(ranked) if ranked else None
    curve = train_supervised(
        model, uneven_rows(rows), params, PAD, checkpoints=checkpoints, held_out=uneven_rows(held_out), ranking=ranking
    )
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, curve


def start(
    folder: Path, processes: int, rows: int, kill_at: int = 0, held_out: int = 0, ranked: int = 0, **parameters: Any
) -> subprocess.CompletedProcess[str]:
    """kill_at: the step at whose end each process kills itself; 0 = none."""
    folder.mkdir(parents=True, exist_ok=True)
    params = {**SMALL, **parameters, "processes": processes}
    (folder / "run.json").write_text(
        json.dumps({"rows": rows, "kill_at": kill_at, "held_out": held_out, "ranked": ranked, "params": params})
    )
    return forked_processes.run(__name__, folder, processes)


def run(folder: Path, processes: int, rows: int, **parameters: Any) -> Trained:
    """Weights and curve of the main process."""
    done = start(folder, processes, rows, **parameters)
    assert done.returncode == 0, done.stderr[-4000:]
    return load_file(folder / "weights.safetensors"), json.loads((folder / "curve.json").read_text())


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    asked = json.loads((folder / "run.json").read_text())
    if asked["kill_at"]:
        trainer.report_progress = lambda trainer: trainer.add_callback(Killed(asked["kill_at"]))  # type: ignore[attr-defined]
    weights, curve = trained(OptimizerSection(**asked["params"]), asked["rows"], folder / "checkpoints", asked["held_out"], asked["ranked"])
    if is_main_process():
        weights = {name: tensor.contiguous() for name, tensor in weights.items() if name != "lm_head.weight"}
        save_file(weights, folder / "weights.safetensors")
        (folder / "curve.json").write_text(json.dumps(curve))
