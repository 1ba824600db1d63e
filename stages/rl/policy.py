"""The policy that learns: plain torch in one process, or a DeepSpeed engine in several."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import PreTrainedModel

from stages.rl.params import RlParams
from stages.shared.core.errors import StageError
from stages.shared.core.launch import without_compiled_collectives, world_size

MAX_GRAD_NORM = 1.0


class Policy:
    """AdamW without weight decay, constant learning rate.

    `forward` takes part in learning; `module` is the model that samples and is saved.
    """

    def __init__(self, module: PreTrainedModel, params: RlParams):
        self.module: PreTrainedModel = module
        self.forward: Any = module
        self.params = params
        self.optimizer = torch.optim.AdamW(module.parameters(), lr=params.lr, weight_decay=0.0)
        self.microbatches = 0

    def autocast(self) -> AbstractContextManager[Any]:
        device = next(self.module.parameters()).device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.params.precision == "bfloat16")

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        self.microbatches += 1

    def step(self) -> None:
        """One step on the mean of the losses since the last."""
        for parameter in self.module.parameters():
            # A frozen parameter has none.
            if parameter.grad is not None:
                parameter.grad /= self.microbatches
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), MAX_GRAD_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.microbatches = 0

    def zero_loss(self) -> Tensor:
        """A loss of zero that touches every parameter, so that all ranks reduce the same gradients."""
        return torch.stack([parameter.sum() * 0.0 for parameter in self.module.parameters()]).sum()


class DeepSpeedPolicy(Policy):
    """ZeRO stages 1 and 2: every rank holds all weights, so sampling needs no gathering."""

    def __init__(self, module: PreTrainedModel, params: RlParams):
        import deepspeed

        config = json.loads(Path(params.deepspeed).read_text(encoding="utf-8"))
        if config.get("zero_optimization", {}).get("stage", 0) > 2:
            raise StageError(
                f"{params.deepspeed}: rl samples from local weights and takes ZeRO stage 2 at most; use infra/deepspeed/zero2.json"
            )
        microbatches = max(1, -(-params.prompts // params.micro_prompts))
        config |= {
            "train_micro_batch_size_per_gpu": params.micro_prompts * params.group,
            "gradient_accumulation_steps": microbatches,
            "gradient_clipping": MAX_GRAD_NORM,
            "optimizer": {"type": "AdamW", "params": {"lr": params.lr, "weight_decay": 0.0, "torch_adam": True}},
            "bf16": {"enabled": False},  # it would drop the float32 weights; the engine also switches off an autocast it does not know of
            "torch_autocast": {"enabled": params.precision == "bfloat16", "dtype": "bfloat16"},
        }
        # DeepSpeed refuses a total that does not fit the two sizes above, and a schedule would change the constant rate.
        config.pop("train_batch_size", None)
        config.pop("scheduler", None)
        without_compiled_collectives()
        engine, *_ = deepspeed.initialize(model=module, model_parameters=list(module.parameters()), config=config)
        self.module, self.forward, self.params = engine.module, engine, params

    def backward(self, loss: Tensor) -> None:
        self.forward.backward(loss)
        self.forward.step()  # steps at the accumulation boundary only

    def step(self) -> None:
        """Taken by the engine in `backward`."""


def open_policy(model: PreTrainedModel, params: RlParams) -> Policy:
    if params.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        # transformers recomputes in training mode alone; the engine leaves that mode to sample, and comes back to it.
        model.train()
    if params.deepspeed:
        return DeepSpeedPolicy(model, params)
    # Of a torchrun by hand: the parameters that ask for several processes have been refused already.
    if world_size() > 1:
        raise StageError("params.yaml: rl.processes > 1 needs rl.deepspeed, e.g. infra/deepspeed/zero2.json")
    return Policy(model.to("cuda") if torch.cuda.is_available() else model, params)  # type: ignore[arg-type]


def all_sum(value: float) -> float:
    """Sum over ranks."""
    if world_size() == 1:
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"  # nccl reduces nothing that lies on the CPU
    total = torch.tensor([value], dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total)


def all_mean(value: float) -> float:
    return all_sum(value) / world_size()
