"""Muon for the matrices inside a model, AdamW for the rest, as one optimizer that a Trainer can hold.

Muon (Jordan et al. 2024; torch.optim.Muon) orthogonalises the momentum of hidden matrices. A small decoder from scratch learns to
copy and sort in about a third of AdamW's steps (docs/training.md has the measurement). torch orthogonalises in bfloat16; a CPU that does
not multiply in it takes sixty times as long as in float32, and gets float32 here.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import _muon

from stages.shared.core import device


class MuonAdamW(torch.optim.Optimizer):
    """lr is Muon's and applies to 2-D parameters that are no embedding; the rest learn at adam_lr. A scheduler scales both."""

    def __init__(self, model: nn.Module, lr: float, adam_lr: float, weight_decay: float):
        embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # Tied weights appear once in parameters(), so an output head that is the embedding counts as one.
        matrices = [p for p in trained if p.dim() == 2 and id(p) not in embeddings]
        others = [p for p in trained if p.dim() != 2 or id(p) in embeddings]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, momentum=0.95, nesterov=True),
            torch.optim.AdamW(others, lr=adam_lr, weight_decay=weight_decay, betas=(0.9, 0.95)),
        ]
        # Groups for a scheduler to change; the two optimizers hold the state.
        super().__init__([{"params": matrices, "lr": lr}, {"params": others, "lr": adam_lr}], {})

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        loss = closure() if closure else None
        # A Trainer may replace our groups by copies when it prepares us: the rates a scheduler moves are read from them at each step.
        for group, optimizer in zip(self.param_groups, self.optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = group["lr"]
            with suitable_arithmetic():
                optimizer.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({name: part for name, part in state_dict.items() if name != "optimizers"})
        for optimizer, part in zip(self.optimizers, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(part)


@contextmanager
def suitable_arithmetic() -> Iterator[None]:
    """While open, torch's Muon computes in float32 where bfloat16 has no kernels. It has no parameter for that."""
    if device.multiplies_in("bfloat16"):
        yield
        return
    own = _muon._zeropower_via_newtonschulz
    _muon._zeropower_via_newtonschulz = newton_schulz
    try:
        yield
    finally:
        _muon._zeropower_via_newtonschulz = own


def newton_schulz(grad: Tensor, ns_coefficients: Sequence[float], ns_steps: int, eps: float) -> Tensor:
    """Nearly the orthogonal matrix next to `grad` [N, M], in its own precision: each step takes its singular values s nearer to 1, as
    a s + b s^3 + c s^5 (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).
    """
    a, b, c = ns_coefficients
    is_tall = grad.size(0) > grad.size(1)
    near = grad.T if is_tall else grad
    near = near / near.norm().clamp(min=eps)
    for _ in range(ns_steps):
        gram = near @ near.T
        near = torch.addmm(near, torch.addmm(gram, gram, gram, beta=b, alpha=c), near, beta=a)
    return near.T if is_tall else near
