"""Validation loss on held-out rows as training goes on; the weights of the best step are kept on disk, and what training leaves."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stages.shared.core.launch import is_main_process, rank, world_size
from stages.shared.lm.encoding import WeightedExample
from stages.shared.training.weighted_loss import LEAST_WEIGHT

LOSS = "validation"  # its name in the Trainer's log, which a checkpoint holds, and in the curve


class Validation(TrainerCallback):
    """Every `every` steps; each process takes its share of the batches."""

    def __init__(self, trainer: Any, rows: Sequence[WeightedExample], every: int, folder: Path):
        self.trainer, self.every, self.folder = trainer, every, folder
        size = trainer.args.per_device_train_batch_size
        batches = [list(rows[start : start + size]) for start in range(0, len(rows), size)]
        # As many for each process, because under ZeRO-3 all of them take part in every forward pass: the extra ones weigh nothing.
        blank = [replace(row, weights=[0.0] * len(row.ids)) for row in batches[0][:1]]
        batches += [blank] * (-len(batches) % world_size())
        self.batches = batches[rank() :: world_size()]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.every:
            return
        best = min(losses(state.log_history).values(), default=float("inf"))
        loss = self.mean_loss()
        state.log_history.append({LOSS: loss, "step": state.global_step})
        # At a tie the earlier step stays.
        if loss < best:
            self.trainer.save_model(str(self.folder / f"best-{state.global_step}"))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # Not before: a run that goes on from an earlier checkpoint may still need what was best then.
        if is_main_process() and (found := losses(state.log_history)):
            best = best_step(found)
            for path in self.folder.glob("best-*"):
                if path.name != f"best-{best}":
                    shutil.rmtree(path, ignore_errors=True)

    @torch.no_grad()
    def mean_loss(self) -> float:
        """Over the weights of all rows, in every process the same."""
        trainer = self.trainer
        model = trainer.model_wrapped
        model.eval()
        sums = torch.zeros(2, dtype=torch.float64)
        for rows in self.batches:
            batch = trainer._prepare_inputs(trainer.data_collator(rows))
            with trainer.compute_loss_context_manager():
                loss = trainer.compute_loss(model, batch)
            weight = float(batch["weights"][:, 1:].sum())
            sums += torch.tensor([float(loss) * weight, weight])
        model.train()
        total, weight = trainer.accelerator.reduce(sums.to(trainer.args.device), "sum").tolist()
        return float(total / max(weight, LEAST_WEIGHT))


def losses(log: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Step -> validation loss."""
    return {int(entry["step"]): float(entry[LOSS]) for entry in log if LOSS in entry}


def best_step(found: Mapping[int, float]) -> int:
    return min(found, key=lambda step: (found[step], step))


def load_best(model: PreTrainedModel, log: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Puts the weights of the best step into `model`, in place."""
    state: dict[str, Any] = {}
    for path in sorted((folder / f"best-{best_step(losses(log))}").glob("*.safetensors")):
        state |= load_file(path)
    result = model.load_state_dict(state, strict=False)  # of tied weights one name is saved
    assert state and not result.unexpected_keys, result
    model.tie_weights()


def validation_span(curve: Sequence[Mapping[str, float]], rows: int) -> dict[str, float]:
    """For ValidationSpan."""
    found = losses(curve)
    best = best_step(found)
    return {"rows": rows, "best_step": best, "best": found[best], "last": found[max(found)]}
