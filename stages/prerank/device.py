"""Where the pre-rankers that use torch compute."""

import torch

from stages.shared.errors import StageError


def device_of(wanted: str) -> str:
    """wanted: auto, cpu or cuda."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise StageError("params.yaml: prerank.device: cuda, but torch finds no GPU here; set it to auto or cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted
