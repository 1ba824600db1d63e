"""ZeRO-3: weights that are shared out between processes from the start, and whole again at the end."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn


def is_shared_out(parameters: Iterable[nn.Parameter]) -> bool:
    return any(hasattr(parameter, "ds_id") for parameter in parameters)


def gathered(parameters: Iterable[Any]) -> AbstractContextManager[Any]:
    """While open, each process holds these parameters whole, to read."""
    held = list(parameters)
    if not is_shared_out(held):
        return nullcontext()
    import deepspeed  # takes seconds, and only ZeRO-3 needs it

    context: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(held)
    return context
