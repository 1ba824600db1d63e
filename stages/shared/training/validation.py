"""Validation as training goes on: the loss of held-out rows, and what rankings are worth; the best step's weights are kept on disk."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stages.shared.core.launch import is_main_process, rank, world_size
from stages.shared.lm.encoding import WeightedExample
from stages.shared.training.weighted_loss import LEAST_WEIGHT, plain_forward
from stages.shared.training.zero import whole_in_each_process

# Names in the Trainer's log, which a checkpoint holds, and in the curve.
LOSS, NDCG, VALID = "validation", "validation_ndcg@5", "validation_valid"


@dataclass(frozen=True)
class RankingSums:
    """Over the slates that one process answers."""

    ndcg: float
    valid: int
    slates: int


@dataclass(frozen=True)
class RankingCheck:
    """answer: the slates of this process, asked of the model as it is; decides: NDCG@5 says which step is best, not the loss."""

    answer: Callable[[PreTrainedModel], RankingSums]
    decides: bool = False


class Validation(TrainerCallback):
    """Every `every` steps; each process takes its share of the batches, and of the slates."""

    def __init__(self, trainer: Any, rows: Sequence[WeightedExample], every: int, folder: Path, ranking: RankingCheck | None = None):
        self.trainer, self.every, self.folder, self.ranking = trainer, every, folder, ranking
        size = trainer.args.per_device_train_batch_size
        batches = [list(rows[start : start + size]) for start in range(0, len(rows), size)]
        # As many for each process, because under ZeRO-3 all of them take part in every forward pass: the extra ones weigh nothing.
        blank = [replace(row, weights=[0.0] * len(row.ids)) for row in batches[0][:1]]
        batches += [blank] * (-len(batches) % world_size())
        self.batches = batches[rank() :: world_size()]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.every:
            return
        state.log_history.append({LOSS: self.mean_loss(), **self.rankings(), "step": state.global_step})
        # At a tie the earlier step stays.
        if best_step(state.log_history, self.by_ndcg) == state.global_step:
            self.trainer.save_model(str(self.folder / f"best-{state.global_step}"))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # Not before: a run that goes on from an earlier checkpoint may still need what was best then.
        if is_main_process() and measured(state.log_history):
            best = best_step(state.log_history, self.by_ndcg)
            for path in self.folder.glob("best-*"):
                if path.name != f"best-{best}":
                    shutil.rmtree(path, ignore_errors=True)

    @property
    def by_ndcg(self) -> bool:
        return self.ranking is not None and self.ranking.decides

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
        total, weight = self._sum(sums)
        return float(total / max(weight, LEAST_WEIGHT))

    def rankings(self) -> dict[str, float]:
        """NDCG@5 and the share of valid answers over all slates, in every process the same; none without slates."""
        if self.ranking is None:
            return {}
        model = self.trainer.model
        with whole_in_each_process(model, self.trainer.model_wrapped), plain_forward(model):
            own = self.ranking.answer(model)
        ndcg, valid, slates = self._sum(torch.tensor([own.ndcg, own.valid, own.slates], dtype=torch.float64))
        return {NDCG: ndcg / slates, VALID: valid / slates}

    def _sum(self, own: torch.Tensor) -> list[float]:
        total: list[float] = self.trainer.accelerator.reduce(own.to(self.trainer.args.device), "sum").tolist()
        return total


def measured(log: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """Step -> name -> what validation measured there."""
    return {
        int(entry["step"]): {name: float(entry[name]) for name in (LOSS, NDCG, VALID) if name in entry} for entry in log if LOSS in entry
    }


def best_step(log: Sequence[Mapping[str, Any]], by_ndcg: bool = False) -> int:
    """Of lowest loss, or of highest NDCG@5; the earlier one at a tie."""
    found = measured(log)
    return min(found, key=lambda step: (-found[step][NDCG] if by_ndcg else found[step][LOSS], step))


def load_best(model: PreTrainedModel, log: Sequence[Mapping[str, Any]], folder: Path, by_ndcg: bool = False) -> None:
    """Puts the weights of the best step into `model`, in place."""
    state: dict[str, Any] = {}
    for path in sorted((folder / f"best-{best_step(log, by_ndcg)}").glob("*.safetensors")):
        state |= load_file(path)
    result = model.load_state_dict(state, strict=False)  # of tied weights one name is saved
    assert state and not result.unexpected_keys, result
    if not hasattr(model.get_input_embeddings(), "token_adapter"):  # peft ties its adapters itself, and hides the names of the rest
        model.tie_weights()


def validation_span(curve: Sequence[Mapping[str, float]], rows: int, slates: int = 0, by_ndcg: bool = False) -> dict[str, Any]:
    """For ValidationSpan. slates: those of a RankingCheck."""
    found = measured(curve)
    best, last = best_step(curve, by_ndcg), max(found)
    span: dict[str, Any] = {"rows": rows, "best_step": best, "best": found[best][LOSS], "last": found[last][LOSS]}
    if not slates:
        return span
    ranked = {at: {"ndcg@5": found[step][NDCG], "valid": found[step][VALID]} for at, step in (("best", best), ("last", last))}
    return span | {"ranking": {"slates": slates, "decides": by_ndcg, **ranked}}
