"""ZeRO-3 (Rajbhandari et al. 2020, arXiv 1910.02054): weights shared out between processes from the start, whole again at the end."""

import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.shared.core.launch import TrainingSection, is_main_process, local_rank, without_compiled_collectives


@contextmanager
def shared_out(params: TrainingSection) -> Iterator[None]:
    """While open, from_pretrained gives each process its share of every weight alone, if params.deepspeed names a ZeRO-3 configuration."""
    zero = zero_options(params.deepspeed)
    if zero.get("stage") != 3:
        yield
        return
    import deepspeed  # takes seconds, and only ZeRO-3 needs it
    from transformers.integrations.deepspeed import HfDeepSpeedConfig

    without_compiled_collectives()
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
    deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo", auto_mpi_discovery=False)
    # What the Trainer fills in for "auto" is not known yet, and does not matter to where the weights lie.
    known = {name: value for name, value in zero.items() if value != "auto"}
    held = HfDeepSpeedConfig({"train_micro_batch_size_per_gpu": 1, "zero_optimization": known, "bf16": {"enabled": params.autocasts}})
    yield
    del held  # transformers looks it up for as long as somebody holds it


def zero_options(deepspeed: str) -> dict[str, Any]:
    """What the DeepSpeed configuration at this path says of ZeRO; empty without one."""
    options: dict[str, Any] = json.loads(Path(deepspeed).read_text(encoding="utf-8")).get("zero_optimization", {}) if deepspeed else {}
    return options


def is_shared_out(parameters: Iterable[nn.Parameter]) -> bool:
    return any(hasattr(parameter, "ds_id") for parameter in parameters)


def gathered(parameters: Iterable[Any], written: bool = False) -> AbstractContextManager[Any]:
    """While open, each process holds these parameters whole, to read. With `written`, what the main one writes is shared out again."""
    held = list(parameters)
    if not is_shared_out(held):
        return nullcontext()
    import deepspeed

    context: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(held, modifier_rank=0 if written else None)
    return context


@contextmanager
def whole_in_each_process(model: PreTrainedModel, engine: Any) -> Iterator[None]:
    """While open, each process holds all weights and may call the model as often as it likes, without the others; not to train.

    Weights that are not shared out are whole anyway. engine: DeepSpeed's, around the model.
    """
    if not is_shared_out(model.parameters()):
        yield
        return
    offload = engine.optimizer.parameter_offload
    with gathered(model.parameters()):
        # Each call would share out again what it has read, and fetch it from the others (TRL's unwrap_model_for_generation does likewise).
        for parameter in model.parameters():
            parameter.ds_active_sub_modules.clear()  # type: ignore[attr-defined]
        for hook in [*offload.forward_hooks, *offload.backward_hooks]:
            hook.remove()
        offload.forward_hooks, offload.backward_hooks = [], []
        try:
            yield
        finally:
            offload._register_deepspeed_module(offload.module)


def make_whole(model: PreTrainedModel, engine: Any) -> None:
    """A plain model again in the main process; in the others its weights are gone, so that no host holds one copy a process."""
    whole: dict[int, nn.Parameter] = {}
    for parameter in model.parameters():
        with gathered([parameter]):
            # Beside what the engine still holds there is no room on a GPU.
            data = parameter.data.to("cpu", copy=True) if is_main_process() else torch.empty(0)
        whole[id(parameter)] = nn.Parameter(data, parameter.requires_grad)
    devices = {id(parameter): parameter.device for parameter in model.parameters()}
    engine.destroy()
    for key, parameter in whole.items():
        parameter.data = parameter.data.to(devices[key])
    # New parameters in new dictionaries: DeepSpeed's own go on asking the other processes for their shares, which have left by then.
    for module in model.modules():
        module._parameters = {name: None if old is None else whole[id(old)] for name, old in dict.items(module._parameters)}
