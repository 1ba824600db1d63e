"""Bytes that a training run really allocates for weights, gradients and the optimizer: measured in a step of train_supervised.

`measured(...)` in this process; `measured_shares(folder, 2, ...)` is two processes, reads the model at folder/model as a stage
does, and returns what each process has.
"""

import json
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback

from stages.shared.core.launch import rank
from stages.shared.lm.models import load_model
from stages.shared.training import trainer
from stages.shared.training.params import OptimizerSection
from stages.shared.training.trainer import train_supervised
from stages.shared.training.zero import shared_out
from tests.support import forked_processes
from tests.support.training_run import PAD, ROOT, uneven_rows

Bytes = dict[str, int]
TOKEN_IDS = list(range(40, 50))


class Measure(TrainerCallback):
    """Between the optimizer's step and the next one."""

    def __init__(self, running: Any):
        self.running, self.bytes = running, {}

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        engine = self.running.model_wrapped
        optimizer = getattr(self.running.optimizer, "optimizer", self.running.optimizer)
        if not hasattr(engine, "zero_optimization_stage"):
            weights = list(engine.parameters()) + [b for name, b in engine.named_buffers() if "trainable_tokens_original" in name]
            gradients = [parameter.grad for parameter in engine.parameters() if parameter.grad is not None]
            self.bytes = {"weights": size(weights), "gradients": size(gradients), "optimizer": size(states(optimizer))}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        engine = self.running.model_wrapped
        if not hasattr(engine, "zero_optimization_stage"):
            return
        zero = engine.optimizer
        if engine.zero_optimization_stage() == 3:
            weights = [parameter.ds_tensor for parameter in engine.module.parameters()]
            gradients, masters = [zero.grad_partitions_flat_buffer], zero.fp32_partitioned_groups_flat
        else:
            weights = list(engine.module.parameters())
            gradients, masters = [], zero.single_partition_of_fp32_groups  # its gradients are gone after each step
        self.bytes = {"weights": size(weights), "gradients": size(gradients), "optimizer": size([*masters, *states(zero.optimizer)])}


def states(optimizer: Any) -> Iterable[Tensor]:
    """Moments, without the step counts, one number a tensor."""
    inner = getattr(optimizer, "optimizers", None) or [optimizer]
    entries = chain.from_iterable(one.state.values() for one in inner)
    return [value for entry in entries for value in entry.values() if torch.is_tensor(value) and value.numel() > 1]


def size(tensors: Iterable[Tensor]) -> int:
    """Each memory once, however many names it has."""
    return sum({tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}.values())


def measured(model: PreTrainedModel, params: OptimizerSection) -> Bytes:
    measures: list[Measure] = []
    untouched = trainer.report_progress

    def watch(running: Any) -> None:
        measures.append(Measure(running))
        running.add_callback(measures[0])

    trainer.report_progress = watch  # type: ignore[attr-defined]
    try:
        train_supervised(model, uneven_rows(4), params, PAD, token_ids=TOKEN_IDS)
    finally:
        trainer.report_progress = untouched  # type: ignore[attr-defined]
    return measures[0].bytes


def measured_shares(folder: Path, processes: int, **parameters: Any) -> list[Bytes]:
    params = {"steps": 1, "batch_size": 1, "log_every": 1, "warmup": 0.0, "threads": 1, **parameters, "processes": processes}
    (folder / "params.json").write_text(json.dumps(params))
    done = forked_processes.run(__name__, folder, processes, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"bytes-{number}.json").read_text()) for number in range(processes)]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    params = OptimizerSection(**json.loads((folder / "params.json").read_text()))
    with shared_out(params):
        model = load_model(folder / "model")
    (folder / f"bytes-{rank()}.json").write_text(json.dumps(measured(model, params)))
