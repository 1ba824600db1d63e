"""What a run under some parameters needs of the machine and its folders, and how to come by what is missing."""

import importlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from stages.midtrain.params import SCRATCH
from stages.shared.core.device import multiplies_in
from stages.shared.core.errors import StageError
from stages.shared.core.model_folder import NAMED_MODELS
from stages.shared.lm.models import check_weights, load_tokenizer, sampling_settings
from stages.shared.slates.layouts.dialogue import chat_template
from stages.tools.check_params import Params
from stages.tools.memory.precision import TRAINING, half_precisions
from stages.tools.memory.shapes import named_folder
from stages.tools.memory.shards import shard_counts, written_gb
from stages.tools.memory.stage import StageMemory

GB = 2**30
COPIES = 2  # of each model: in the workspace, and in DVC's cache
WRITTEN = 4  # models that a run writes: midtrain, sft, rl, quantize


class Check(NamedTuple):
    """remedy: what to do where it is not ok."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


def checks(params: Params, resources: Mapping[str, Mapping[str, Any]], model_gb: float, stages: list[StageMemory]) -> list[Check]:
    """model_gb: of one model that the stages write. stages: what each takes, shards among them."""
    folders = model_folders(params)
    found = [check_folder(key, named_folder(path), needs_template) for key, path, needs_template in folders]
    found += [check_engine(module, keys) for module, keys in engines(params).items()]
    found += [check_arithmetic(dtype, keys) for dtype, keys in half_precisions(params).items()]
    counts = shard_counts(params)
    runs = {stage: values for stage, values in resources.items() if counts.get(stage, 1)}  # the others have no shards to run
    needed = COPIES * (WRITTEN * model_gb + written_gb(stages))
    return [*found, check_disk(Path.cwd(), needed), *check_machine(runs), *check_shards(stages, runs)]


def model_folders(params: Params) -> list[tuple[str, str, bool]]:
    """(key, folder, whether it must have a chat template) of each model that a run under `params` reads from a folder of the user's, or
    that is made by code."""
    chat, teacher = params.prompt.layout == "chat", params.traces.language_model
    folders = []
    if params.midtrain.model != SCRATCH:
        folders.append(("midtrain.model", params.midtrain.model, chat))
    # A server with messages of text knows its own tokenizer.
    if params.traces.teacher == "language_model" and (teacher.engine.kind != "endpoint" or teacher.engine.endpoint.api != "chat"):
        folders.append(("traces.language_model.model", teacher.model, chat))
    if Path(params.embed.model).parent != Path(NAMED_MODELS):
        folders.append(("embed.model", params.embed.model, False))
    return folders


def check_folder(key: str, folder: Path, needs_template: bool) -> Check:
    """Configuration, weights as safetensors, a tokenizer whose special tokens agree with vocabulary and rows, a template."""
    remedy = f"copy or link the whole Hugging Face folder to {folder}, or name another: {key}"
    if not folder.is_dir():
        return Check(key, False, f"{folder}: no such folder", remedy)
    if not (folder / "config.json").exists():
        return Check(key, False, f"{folder}: no config.json", remedy)
    try:
        check_weights(folder)
        tokenizer = load_tokenizer(folder)
        if needs_template:
            chat_template(tokenizer)
    except StageError as error:
        return Check(key, False, str(error), remedy)
    # transformers reads any list of shards; one that is not there would be found out when the others have been loaded.
    if missing := [name for name in shards(folder) if not (folder / name).exists()]:
        return Check(key, False, f"{folder}: {missing[0]} is missing, which model.safetensors.index.json names", remedy)
    more = ", chat template" if needs_template else ""
    if settings := sampling_settings(folder):
        more += f"; generation_config.json: {', '.join(settings)}: not used"
    return Check(key, True, f"{folder}: {len(tokenizer):,} tokens{more}")


def shards(folder: Path) -> list[str]:
    from stages.shared.core.outputs import read_json

    index = folder / "model.safetensors.index.json"
    return sorted(set(read_json(index)["weight_map"].values())) if index.exists() else []


def engines(params: Params) -> dict[str, list[str]]:
    """module -> the keys that ask for it."""
    asked: dict[str, list[str]] = {}
    if params.evaluate.engine.kind == "vllm":
        asked.setdefault("vllm", []).append("evaluate.engine.kind")
    if params.traces.teacher == "language_model" and params.traces.language_model.engine.kind == "vllm":
        asked.setdefault("vllm", []).append("traces.language_model.engine.kind")
    if params.rl.rollout.engine == "vllm":
        asked.setdefault("vllm", []).append("rl.rollout.engine")
    if params.distil.mode in ("answer_only", "race") and params.distil.engine.kind == "vllm":
        asked.setdefault("vllm", []).append("distil.engine.kind")
    for section in TRAINING:
        if getattr(params, section).deepspeed and getattr(params, section).trains:
            asked.setdefault("deepspeed", []).append(f"{section}.deepspeed")
    return asked


def check_engine(module: str, keys: list[str]) -> Check:
    """By importing it: an installed vLLM that was built for another CUDA is found out only so."""
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            version = getattr(importlib.import_module(module), "__version__", "")
    except Exception as error:
        remedy = "pip install '.[gpu]' on a GPU host, '.[cpu]' elsewhere" if module == "vllm" else "make setup"
        return Check(module, False, f"cannot be imported ({error}), and {', '.join(keys)} needs it", remedy)
    return Check(module, True, f"{version}, for {', '.join(keys)}")


def check_arithmetic(dtype: str, keys: list[str]) -> Check:
    """Never missing: what a CPU does not multiply in is computed in float32."""
    here = "computed as such" if multiplies_in(dtype) else "computed in float32: this CPU multiplies in nothing else"
    return Check(dtype, True, f"{here}, for {', '.join(keys)}")


def check_disk(folder: Path, needed_gb: float) -> Check:
    free = shutil.disk_usage(folder).free / GB
    found = f"{free:.0f} GB free, {needed_gb:.1f} GB for the models and shards of a run and their copies in DVC's cache"
    return Check("disk", free >= needed_gb, found, "make room (gr2 gc), or put the project and its cache on a larger disk")


def check_machine(resources: Mapping[str, Mapping[str, Any]]) -> Iterator[Check]:
    """Whether the stage that asks most could run here."""
    gpus = {stage: int(values.get("gpus", 0)) for stage, values in resources.items()}
    memory = {stage: float(values.get("memory_gb", 0)) for stage, values in resources.items()}
    elsewhere = "run the stage on a host that has it: gr2 run --placement gpu-host (docs/gpu-host.md), or lower resources"
    if most := max(gpus.values(), default=0):
        visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
        stage = max(gpus, key=lambda name: gpus[name])
        yield Check("GPUs", visible >= most, f"{visible} visible, resources.{stage}.gpus: {most}", elsewhere)
    total, stage = psutil.virtual_memory().total / GB, max(memory, key=lambda name: memory[name])
    yield Check("memory", total >= memory[stage], f"{total:.0f} GB, resources.{stage}.memory_gb: {memory[stage]:.0f}", elsewhere)


def check_shards(stages: list[StageMemory], resources: Mapping[str, Mapping[str, Any]]) -> Iterator[Check]:
    """How many shards of a stage this machine has cores, memory and GPUs for at a time."""
    for stage in stages:
        if not stage.shards:
            continue
        asked = resources.get(stage.stage, {})
        cpus, gpus, memory = int(asked.get("cpus", 1)), int(asked.get("gpus", 0)), float(asked.get("memory_gb", 0))
        places = [
            len(os.sched_getaffinity(0)) // max(1, cpus),
            int(psutil.virtual_memory().total / GB // memory) if memory else stage.shards,
        ]
        places += [(torch.cuda.device_count() if torch.cuda.is_available() else 0) // gpus] if gpus else []
        fitting = min(stage.shards, *places)
        found = f"{stage.shards} of {cpus} cores, {gpus} GPUs and {memory:.0f} GB each (resources.{stage.stage}); {fitting} at a time here"
        remedy = f"place them on hosts that have it: gr2 run --placement gpu-host (docs/scale.md), or lower resources.{stage.stage}"
        yield Check(stage.stage, fitting > 0, found, remedy)


def visible_gpu_gb() -> float | None:
    """Of the smallest GPU that is visible here."""
    if not torch.cuda.is_available():
        return None
    return float(min(torch.cuda.get_device_properties(number).total_memory for number in range(torch.cuda.device_count())) / GB)


def listing(found: list[Check]) -> list[str]:
    lines = []
    for check in found:
        lines.append(f"{'ok     ' if check.ok else 'MISSING'}  {check.name}: {check.found}")
        lines += [f"         -> {check.remedy}"] if not check.ok else []
    return lines
