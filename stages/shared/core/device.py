"""Where torch computes."""

import torch

from stages.shared.core.errors import StageError


def device_of(device: str, key: str) -> str:
    """`device`: auto, cpu or cuda, the value of the parameter `key`; auto takes the GPU if there is one."""
    if device == "cuda" and not torch.cuda.is_available():
        raise StageError(f"params.yaml: {key}: cuda, but torch finds no GPU here; set it to auto or cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
