"""Two processes of a policy under ZeRO-3 with adapters, after an update: what each reads of the weights that are sent to its engine.

`sent(folder)` -> (what each process read, the model as it is saved at the end).
"""

import json
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from stages.rl.engines.beside import path_of_this_machine
from stages.rl.engines.memory_file import MemoryFile
from stages.rl.engines.whole_weights import weights_of, whole_weights
from stages.rl.params import RlParams
from stages.shared.core.launch import is_main_process, local_rank, rank
from tests.support import forked_processes
from tests.support.rl_run import ROOT, ZERO_3, loss_of, opened
from tests.support.tiny_models import tiny_folder


def sent(folder: Path) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    tiny_folder(folder / "model")
    config = json.loads((ROOT / ZERO_3).read_text())
    config["zero_optimization"]["stage3_param_persistence_threshold"] = 0  # small weights are shared out, too
    (folder / "zero3.json").write_text(json.dumps(config))
    done = forked_processes.run(__name__, folder, 2)
    assert done.returncode == 0, done.stderr[-6000:]
    return [load_file(folder / f"read-{number}.safetensors") for number in range(2)], load_file(folder / "saved.safetensors")


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    lora = {"rank": 4, "targets": ["q_proj", "down_proj"]}
    values = {"processes": 2, "prompts": 1, "micro_prompts": 1, "group": 3, "deepspeed": "zero3.json", "shared_prefix": "tree", "lr": 0.05}
    policy = opened(RlParams.model_validate({**values, "lora": lora}), folder)
    file = MemoryFile({weight.name: weight.shape for weight in weights_of(policy.module)}, "float32") if local_rank() == 0 else None
    path = path_of_this_machine(file)
    for _ in range(2):  # after the first the adapters' second matrix alone has moved
        policy.backward(loss_of(policy, rank()))
    for name, tensor in whole_weights(policy.module):
        if file:
            file.write(name, tensor)
    dist.barrier()
    save_file({name: tensor.clone() for name, tensor in load_file(path).items()}, folder / f"read-{rank()}.safetensors")
    dist.barrier()
    policy.finish()
    if is_main_process():
        save_file({name: value.detach().contiguous() for name, value in policy.module.named_parameters()}, folder / "saved.safetensors")
