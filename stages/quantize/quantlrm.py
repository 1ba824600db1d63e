"""QuantLRM: which input channels matter, from how fine-tuning moved their weights.

Zhang et al., "QuantLRM: Quantization of Large Reasoning Models via Fine-Tuning Signals" (arXiv 2602.02581): the smallest and the largest
updates protect what was learnt. With x = |W_tuned - W_base| of one weight, and min, mid, max the least, the median and the largest of all
updates of the model that are not 0:

    y(x) = 1 + 9 ((mid - x) / (mid - min))^2  for 0 < x <= mid,   1 + 9 ((x - mid) / (max - mid))^2  for x > mid,   y(0) = 1
    importance of channel i = (mean of y over the column i) * (1 + number of weights of the column i that did not move)

as in the authors' code (psunlpgroup/QuantLRM), with which the published figures were made; of layers that read one input the first counts,
as there. The importance takes the place of AWQ's mean |x| (stages/quantize/awq.py). Weights trained in float32, or by adapters that were
merged, hardly ever stay exactly where they were: then only y counts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from stages.shared.core.errors import StageError

ENDS = 10.0  # y at both ends
SAMPLED = 1 << 24  # updates of which the median is taken: of larger models every n-th


class BaseWeights:
    """The weights of the model before fine-tuning, read one at a time."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.file_of: dict[str, Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                self.file_of |= dict.fromkeys(file.keys(), path)
        if not self.file_of:
            raise StageError(f"params.yaml: quantize.base: {folder} has no *.safetensors; name the model that fine-tuning began from")

    def update(self, name: str, layer: nn.Linear) -> Tensor:
        """|tuned - base| of the layer `name` [O, I], float32, where the layer is."""
        key = f"{name}.weight"
        if key not in self.file_of:
            raise StageError(f"params.yaml: quantize.base: {self.folder} has no {key}; name the model that fine-tuning began from")
        with safe_open(self.file_of[key], framework="pt") as file:
            base: Tensor = file.get_tensor(key)
        if base.shape != layer.weight.shape:
            raise StageError(f"params.yaml: quantize.base: {key} of {self.folder} is {tuple(base.shape)}, here {tuple(layer.weight.shape)}")
        # Compared as the base was stored: a weight that only the wider type can tell from its old value did not move.
        tuned = layer.weight.detach().cpu().to(base.dtype)
        return (tuned.float() - base.float()).abs().to(layer.weight.device)


@dataclass(frozen=True)
class UpdateRange:
    """Of all updates of a model that are not 0."""

    least: float
    median: float
    largest: float

    @classmethod
    def of(cls, base: BaseWeights, layers: Mapping[str, nn.Linear]) -> "UpdateRange":
        stride = max(1, sum(layer.weight.numel() for layer in layers.values()) // SAMPLED)
        return cls.of_updates((base.update(name, layer) for name, layer in layers.items()), stride, str(base.folder))

    @classmethod
    def of_updates(cls, updates: Iterable[Tensor], stride: int = 1, source: str = "base") -> "UpdateRange":
        least, largest, sampled = float("inf"), 0.0, []
        for update in updates:
            moved = update[update > 0].cpu()
            if moved.numel():
                least, largest = min(least, float(moved.min())), max(largest, float(moved.max()))
                sampled.append(moved[::stride])
        if not sampled:
            raise StageError(
                f"params.yaml: quantize.base: {source} has the same weights as the model itself; name the one before fine-tuning"
            )
        return cls(least, float(np.median(torch.cat(sampled).numpy())), largest)


def importance(update_OI: Tensor, spread: UpdateRange) -> Tensor:
    """Of each input channel [I], from |update| [O, I]."""
    left = (spread.median - update_OI) / max(spread.median - spread.least, 1e-30)
    right = (update_OI - spread.median) / max(spread.largest - spread.median, 1e-30)
    # Out of a sample the median may lie off the true one; both arms end at ENDS all the same.
    bowl_OI = 1 + (ENDS - 1) * torch.where(update_OI <= spread.median, left, right).clamp(-1, 1).square()
    bowl_OI = torch.where(update_OI == 0, 1.0, bowl_OI)
    return bowl_OI.mean(dim=0) * (1 + (update_OI == 0).sum(dim=0))
