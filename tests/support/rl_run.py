"""One backward pass of the RL policy in several processes, each with a group of its own: `gradients(folder, 2, **parameters)`."""

import json
import subprocess
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stages.rl.params import RlParams
from stages.rl.policy import Policy, open_policy
from stages.shared.core.launch import is_main_process, rank
from stages.shared.lm.models import load_model
from stages.shared.training.zero import shared_out
from tests.support import forked_processes
from tests.support.tiny_models import random_prompts, tiny_folder

ROOT = Path(__file__).parents[2]
PAD, TOKEN_IDS = 0, (3, 9, 33)
ZERO_3 = "infra/deepspeed/zero3.json"


def group(place: int) -> tuple[list[list[int]], list[list[list[int]]], Tensor]:
    """Prompt, responses and the weights of their log-probabilities. The groups are of different sizes in tokens: chunks, too."""
    prompts = random_prompts(1, 200, 8 + 10 * place, 9 + 10 * place, seed=place)
    responses = random_prompts(3, 200, 1 + 8 * place, 6 + 9 * place, seed=5 + place)
    weights = torch.randn(3, max(map(len, responses)), generator=torch.Generator().manual_seed(place))
    return prompts, [responses], weights


def loss_of(policy: Policy, place: int) -> Tensor:
    prompts, responses, weights = group(place)
    scores = policy.score(prompts, responses, PAD)
    return (scores.logp * weights * scores.mask).sum()


def opened(params: RlParams, folder: Path) -> Policy:
    with shared_out(params.model_copy(update={"precision": "float32"})):
        model = load_model(folder / "model")
    policy = open_policy(model, params, TOKEN_IDS)
    policy.module.train()
    return policy


def start(folder: Path, processes: int, **parameters: Any) -> subprocess.CompletedProcess[str]:
    """The folder then has gradients.safetensors, those of all processes averaged, and sampled.safetensors, logits of whole weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny_folder(folder / "model")
    config = json.loads((ROOT / ZERO_3).read_text())
    config["zero_optimization"]["stage3_param_persistence_threshold"] = 0  # small weights are shared out, too
    (folder / "zero3.json").write_text(json.dumps(config))
    params = {"processes": processes, "threads": 1, "prompts": 1, "micro_prompts": 1, "group": 3, "deepspeed": "zero3.json", **parameters}
    (folder / "run.json").write_text(json.dumps(params))
    return forked_processes.run(__name__, folder, processes)


def gradients(folder: Path, processes: int, **parameters: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    done = start(folder, processes, **parameters)
    assert done.returncode == 0, done.stderr[-6000:]
    return load_file(folder / "gradients.safetensors"), load_file(folder / "sampled.safetensors")


def main(folder: Path) -> None:
    from deepspeed.utils import safe_get_full_grad

    torch.set_num_threads(1)
    policy = opened(RlParams.model_validate(json.loads((folder / "run.json").read_text())), folder)
    with policy.sampling(), torch.no_grad():
        # As often as the rank says: no process waits for another.
        for _ in range(1 + 2 * rank()):
            sampled = policy.module(input_ids=torch.tensor(random_prompts(1, 200, 12, 12))).logits
    for turn in range(2):
        policy.forward.backward(loss_of(policy, rank()) if turn == 0 or rank() else policy.zero_loss())
        if turn == 0:
            found = {name: safe_get_full_grad(parameter) for name, parameter in policy.module.named_parameters() if parameter.requires_grad}
        policy.forward.step()
    policy.finish()
    if is_main_process():
        save_file({name: gradient.contiguous() for name, gradient in found.items()}, folder / "gradients.safetensors")
        whole = torch.stack([parameter.isfinite().all() for parameter in policy.module.parameters()])
        save_file({"logits": sampled, "whole": whole}, folder / "sampled.safetensors")
