"""Supervised training with the Hugging Face Trainer: weighted token loss, DeepSpeed when asked, loss history as rows."""

import tempfile
from collections.abc import Sequence, Sized
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset, SequentialSampler
from transformers import PreTrainedModel, Trainer, TrainingArguments, get_scheduler

from stages.shared.core.launch import is_main_process, without_compiled_collectives, world_size
from stages.shared.lm.encoding import WeightedExample
from stages.shared.training.checkpoints import KeepNewest, newest_checkpoint
from stages.shared.training.heap import freed_memory_kept
from stages.shared.training.lora import add_lora, merge_lora, one_name_each
from stages.shared.training.muon import MuonAdamW
from stages.shared.training.ordinal import OrdinalWords
from stages.shared.training.params import OptimizerSection
from stages.shared.training.progress import report_progress
from stages.shared.training.rows.length_groups import grouped_by_length
from stages.shared.training.rows.row_files import InOrder
from stages.shared.training.validation import RankingCheck, Validation, load_best, measured
from stages.shared.training.weighted_loss import LEAST_WEIGHT, chunked_forward, weighted_loss
from stages.shared.training.zero import is_shared_out, make_whole

SCHEDULES = {"cosine": "cosine", "constant": "constant_with_warmup"}  # ours -> transformers'


def collate(examples: Sequence[WeightedExample], pad_id: int) -> dict[str, Tensor]:
    """Right-padded batch: input_ids, attention_mask, position_ids [B, L], weights [B, L] (0 on padding)."""
    length = max(len(example.ids) for example in examples)
    batch: dict[str, list[Sequence[float]]] = {"input_ids": [], "attention_mask": [], "position_ids": [], "weights": []}
    for example in examples:
        gap = length - len(example.ids)
        batch["input_ids"].append(example.ids + [pad_id] * gap)
        batch["attention_mask"].append([1] * len(example.ids) + [0] * gap)
        # Padding counts on: it would otherwise look like the beginning of another packed document.
        positions = example.positions()
        batch["position_ids"].append(positions + [positions[-1] + 1 + place for place in range(gap)])
        batch["weights"].append(example.weights + [0.0] * gap)
    return {name: torch.tensor(rows, dtype=torch.float32 if name == "weights" else torch.long) for name, rows in batch.items()}


class TrainingObjective(Protocol):
    """Something else to learn from the rows than the likelihood of their tokens (stages/distil)."""

    def forward(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        """While open, model(input_ids, position_ids, weights) is a sum of weighted losses, as under chunked_forward."""
        ...

    def batches(self, model: PreTrainedModel, batches: Sequence[dict[str, Tensor]], step: int) -> list[dict[str, Tensor]]:
        """What step `step`, from 0, learns from, of its batches as collated."""
        ...


class WeightedTrainer(Trainer):
    """Trainer whose loss weighs each token, and which takes the examples in the order given: the caller decides on the curriculum.

    chunked: the model's forward is that of weighted_loss.chunked_forward, or of an objective. over_step: the weights of a whole step of all
    processes are the unit of the mean, not those of one process and batch.
    """

    ordinal: OrdinalWords | None = None
    chunked = False
    over_step = False
    has_adapters = False
    objective: TrainingObjective | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        # The Trainer would shuffle; midtrain and sft have put the rows in their order already, with their own seed.
        return SequentialSampler(cast(Sized, self.train_dataset if train_dataset is None else train_dataset))

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Tensor | None]:
        """The batches of one step, and the sum of their weights in all processes where that is the unit of the mean."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.objective:
            batches = self.objective.batches(cast(PreTrainedModel, self.model), batches, self.state.global_step)
        if not self.over_step or not batches:
            return batches, None
        total = torch.stack([batch["weights"][:, 1:].sum() for batch in batches]).sum().to(device)
        return batches, self.accelerator.reduce(total, "sum")

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.has_adapters:
            # On both names of a tied matrix peft puts one adapter, which transformers does not know for tied and refuses to save.
            state_dict = one_name_each(self.model.state_dict() if state_dict is None else state_dict)  # type: ignore[union-attr]
        super()._save(output_dir, state_dict)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Tensor | int | None = None
    ) -> Any:
        weights, ids, positions = inputs["weights"], inputs["input_ids"], inputs["position_ids"]
        total = cast(Tensor | None, num_items_in_batch)
        outputs: Any = None
        if self.chunked:
            loss = model(input_ids=ids, position_ids=positions, weights=weights)
            loss = loss / (weights[:, 1:].sum() if total is None else total).clamp_min(LEAST_WEIGHT)
        else:
            # Logits are the widest tensor of a small model: make them only from the first token that counts.
            counted = (weights > 0).any(dim=0).nonzero()
            first = max(0, int(counted[0]) - 1) if len(counted) else 0
            kept = ids.shape[1] - first
            # Without a mask transformers reads from the positions where a packed document ends, and masks what lies before it; padding is
            # on the right, where no token of a document looks.
            outputs = model(input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=kept)
            loss = weighted_loss(outputs.logits, ids[:, first:], weights[:, first:], self.ordinal, total)
        if total is not None:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over processes: their sum is wanted
        return (loss, outputs) if return_outputs else loss


def train_supervised(
    model: PreTrainedModel,
    examples: Sequence[WeightedExample],
    params: OptimizerSection,
    pad_id: int,
    ordinal: OrdinalWords | None = None,
    token_ids: Sequence[int] = (),
    checkpoints: Path | None = None,
    held_out: Sequence[WeightedExample] = (),
    ranking: RankingCheck | None = None,
    objective: TrainingObjective | None = None,
) -> list[dict[str, float]]:
    """Trains in place; returns rows {"step", "loss", "lr"}. Under ZeRO-3, and with validation, the main process alone has the weights then.

    token_ids: whose embedding rows are trained beside adapters (params.lora); without adapters all rows are.
    checkpoints: a folder that belongs to this very training (checkpoints.py), for params.save_steps.
    held_out: rows for params.validate_steps; the curve's rows of those steps then have "validation", and the weights are the best step's.
    ranking: what is asked beside them; the curve's rows then have its figures, too.
    objective: what is learnt in place of the rows' own tokens.
    """
    if params.deepspeed:
        without_compiled_collectives()
    with tempfile.TemporaryDirectory() as scratch:
        folder = checkpoints if params.save_steps and checkpoints else Path(scratch)
        model.train()
        # Before the arguments, which tell transformers of ZeRO-3: peft would then look for a GPU, whatever holds the weights.
        lora = add_lora(model, params.lora, token_ids, params.seed) if params.lora.rank else None
        arguments = training_arguments(params, folder)
        if params.group_by_length:
            examples = InOrder(examples, grouped_by_length([len(row.ids) for row in examples], params.batch_size, params.seed))
        dataset = cast(Dataset[WeightedExample], examples)  # a Sequence has all that a data loader asks of one
        trainer = WeightedTrainer(model=model, args=arguments, train_dataset=dataset, data_collator=lambda part: collate(part, pad_id))
        # Set before train(): the Trainer makes its own optimizer only where none is set. DeepSpeed brings its own AdamW.
        if params.optimizer == "muon" and not params.deepspeed:
            optimizer = MuonAdamW(model, params.muon_lr, params.lr, params.weight_decay)
            schedule = get_scheduler(SCHEDULES[params.schedule], optimizer, round(params.warmup * params.steps), params.steps)
            trainer.optimizer, trainer.lr_scheduler = optimizer, schedule
        trainer.ordinal, trainer.objective, trainer.over_step = ordinal, objective, params.loss_mean == "step"
        trainer.chunked = objective is not None or params.loss_chunk > 0
        trainer.loss_is_scaled_for_ga = trainer.over_step
        trainer.has_adapters = lora is not None
        report_progress(trainer)
        trainer.add_callback(KeepNewest())
        if params.validate_steps:
            trainer.add_callback(Validation(trainer, held_out, params.validate_steps, folder, ranking))
        forward = chunked_forward(model, params.loss_chunk, ordinal) if params.loss_chunk else nullcontext()
        with freed_memory_kept(), objective.forward(model) if objective else forward:
            trainer.train(resume_from_checkpoint=newest_checkpoint(folder, arguments.local_process_index == 0))
        if shared := is_shared_out(model.parameters()):
            make_whole(model, trainer.model_wrapped)
        log = trainer.state.log_history
        if params.validate_steps and is_main_process():
            load_best(model, log, folder, ranking is not None and ranking.decides)
        if lora and (is_main_process() or not shared):
            merge_lora(lora)
    model.eval()
    validated = measured(log)
    return [
        {"step": float(row["step"]), "loss": float(row["loss"]), "lr": float(row["learning_rate"])} | validated.get(int(row["step"]), {})
        for row in log
        if "loss" in row
    ]


def training_arguments(params: OptimizerSection, folder: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=params.steps,
        per_device_train_batch_size=params.batch_size,
        gradient_accumulation_steps=params.accumulate,
        learning_rate=params.lr,
        lr_scheduler_type=SCHEDULES[params.schedule],
        warmup_steps=round(params.warmup * params.steps),
        weight_decay=params.weight_decay,
        adam_beta2=0.95,
        bf16=params.autocasts,
        gradient_checkpointing=params.gradient_checkpointing,
        deepspeed=params.deepspeed or None,
        # Without a GPU there is no nccl, which the Trainer would otherwise choose.
        ddp_backend="gloo" if world_size() > 1 and not torch.cuda.is_available() else None,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=params.log_every,
        logging_first_step=True,
        save_strategy="steps" if params.save_steps else "no",
        save_steps=params.save_steps or params.steps,
        save_on_each_node=params.nodes > 1,  # a node has its own disk, and must find the weights there
        report_to=[],
        seed=params.seed,
        data_seed=params.seed,
        remove_unused_columns=False,  # it would drop `weights`, which no model's forward takes
        dataloader_pin_memory=False,  # batches of token ids are small; pinned memory is for large copies to a GPU
    )


def write_curve(rows: Sequence[dict[str, float]], path: Path) -> None:
    """Rows of numbers as CSV, for `dvc plots` and the report; a column that a row lacks is empty there."""
    header = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(header), *(",".join(f"{row[name]:.6g}" if name in row else "" for name in header) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
