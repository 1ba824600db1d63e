"""Checkpoints that outlive a killed training run: the Trainer's own, each complete or not counted, the newest one kept."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stages.shared.core.hashes import file_sha256
from stages.shared.core.progress import note
from stages.shared.core.resume import ResumePoints
from stages.shared.lm.encoding import WeightedExample
from stages.shared.training.params import OptimizerSection

COMPLETE = "complete"  # an empty file, the last one of a checkpoint


def training_resume(stage: str, params: OptimizerSection, rows: Sequence[WeightedExample], *models: Path | None) -> ResumePoints:
    """Where the checkpoints of this very training lie: the same parameters, rows in the same order, and first weights.

    models: the folder that training starts from, and others that decide what is learnt; None: the parameters alone decide about the first
    weights.
    """
    if not params.save_steps:
        return ResumePoints(stage, "none")  # nothing is saved, and hashing a large model takes a while
    # How often it is saved decides nothing.
    data = (
        part
        for row in rows
        for part in (np.array([len(row.ids), *row.ids, *row.starts], dtype=np.int64), np.array(row.weights, dtype=np.float64))
    )
    return ResumePoints(stage, run_key(params.model_dump_json(exclude={"save_steps"}), data, [model for model in models if model]))


def run_key(params: str, data: Iterable[NDArray[Any]], models: Iterable[Path]) -> str:
    """Of these parameters on this data, of these folders of models, this processor, which rounds in its own way, and these libraries."""
    digest = hashlib.sha256(params.encode())
    processor = torch.cuda.get_device_name() if torch.cuda.is_available() else torch.backends.cpu.get_cpu_capability()
    digest.update(" ".join([processor, *(version(name) for name in ("torch", "transformers", "peft", "deepspeed"))]).encode())
    for part in data:
        digest.update(part.tobytes())
    for path in [path for model in models for path in sorted(model.iterdir())]:
        if path.is_file():
            digest.update(f"{path.name} {file_sha256(path)}".encode())
    return digest.hexdigest()[:32]


class KeepNewest(TrainerCallback):
    """Marks each checkpoint when all processes have written their part, then removes the one before."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        keep_newest(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}", args.local_process_index == 0)


def keep_newest(newest: Path, is_first_on_node: bool) -> None:
    """Every process calls it when it has written its part of the checkpoint `newest`."""
    wait_for_all()
    if is_first_on_node:
        _write_through(newest)
        (newest / COMPLETE).touch()
    # No node removes its older checkpoint before every node has the newer one.
    wait_for_all()
    if is_first_on_node:
        for path in newest.parent.glob("checkpoint-*"):
            if path != newest:
                shutil.rmtree(path, ignore_errors=True)


def newest_checkpoint(folder: Path, is_first_on_node: bool) -> str | None:
    """The newest one that is complete on every node; None where there is none. Incomplete ones are removed."""
    steps = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*")}
    complete = {step for step, path in steps.items() if (path / COMPLETE).exists()}
    if dist.is_initialized() and dist.get_world_size() > 1:
        others: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(others, complete)
        complete = set.intersection(*others)
    if is_first_on_node:
        for step in steps.keys() - complete:
            shutil.rmtree(steps[step], ignore_errors=True)
        if complete:
            note(f"training goes on after step {max(complete)} ({steps[max(complete)]})")
    return str(steps[max(complete)]) if complete else None


def wait_for_all() -> None:
    if dist.is_initialized():
        dist.barrier()


def _write_through(folder: Path) -> None:
    """A power cut must not keep the mark and lose what it vouches for."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
