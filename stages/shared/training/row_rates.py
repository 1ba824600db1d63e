"""A learning rate of their own for some rows of the embeddings, under any optimizer of torch.

Groups of an optimizer hold whole parameters, and the new rows lie in one matrix with the old. Scaling their gradients would do nothing
under Adam, whose step m / (sqrt(v) + eps) does not change with the gradient's scale. Here the rows' *update* is scaled: each step of
AdamW moves a weight by lr * (m / (sqrt(v) + eps) + decay * w), and the moments m and v depend on gradients alone, so `ratio` times
the move is exactly the step of AdamW at the rate ratio * lr. A schedule scales both rates alike.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from transformers import PreTrainedModel

from stages.shared.core.errors import StageError


class RowRates:
    """From its making until `stop`, every optimizer step moves the rows `ids` of the embedding, and of an untied head, `ratio` times as
    far as it would. The first step of an optimizer that does not hold the embedding itself is a StageError: adapters, and DeepSpeed's
    copies, learn beside it.
    """

    def __init__(self, model: PreTrainedModel, ids: Sequence[int], ratio: float):
        self.model, self.ids, self.ratio = model, torch.tensor(list(ids)), ratio
        self.before: list[tuple[Tensor, Tensor]] = []
        self.running: Any = None
        # Hooks on all optimizers: whoever trains makes its own, and only later.
        self.handles = [register_optimizer_step_pre_hook(self._keep), register_optimizer_step_post_hook(self._scale)]

    def stop(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _keep(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        # Muon's step calls AdamW's; the outermost one counts.
        if self.running is not None:
            return
        self.running = optimizer
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        rows = self.ids.to(self.model.device)
        self.before = [(weight, weight.detach()[rows].clone()) for weight in self._weights() if id(weight) in held]
        if not self.before:
            self.stop()
            raise StageError(
                "midtrain.new_rows_lr: the optimizer does not hold the embedding itself, so no row of it can have its own rate; set "
                "midtrain.new_rows_lr: 0, or train without adapters and DeepSpeed"
            )

    def _scale(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if optimizer is not self.running:
            return
        self.running = None
        with torch.no_grad():
            for weight, old in self.before:
                rows = self.ids.to(weight.device)
                weight[rows] = old + self.ratio * (weight[rows] - old)

    def _weights(self) -> list[Tensor]:
        modules: list[Any] = [self.model.get_input_embeddings(), self.model.get_output_embeddings()]
        return list({id(module.weight): module.weight for module in modules}.values())
