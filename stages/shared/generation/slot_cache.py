"""A key-value cache in which every row has its own length: token i of a row is in slot i, whatever its neighbours hold.

So rows may advance by different numbers of tokens, and what was written ahead and not kept is overwritten by what comes next.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 64  # slots to spare when a buffer grows, for transformers' own cache copies all it holds at every step


@dataclass
class Slots:
    """Where the next pass writes, the same in every layer. at_BT: a slot for each token, None = from slot 0 on; stop: slots in use."""

    at_BT: Tensor | None = None
    stop: int = 0


class SlotLayer(DynamicLayer):
    """Keys and values are views [B, heads, stop, head_dim] of buffers with room for more; zeros where nothing was written."""

    def __init__(self, slots: Slots):
        super().__init__()
        self.slots = slots

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.key_buffer = self.value_buffer = key_states[:, :, :0]
        at_BT, stop = self.slots.at_BT, self.slots.stop
        most = stop + key_states.shape[-2]  # what is written ahead may lie beyond the slots in use
        self.key_buffer, self.value_buffer = (_with_room(buffer, most) for buffer in (self.key_buffer, self.value_buffer))
        for buffer, states in ((self.key_buffer, key_states), (self.value_buffer, value_states)):
            if at_BT is None:
                buffer[:, :, : states.shape[-2]] = states
            else:
                buffer[torch.arange(len(at_BT), device=at_BT.device)[:, None], :, at_BT] = states.transpose(1, 2)
        self.keys, self.values = self.key_buffer[:, :, :stop], self.value_buffer[:, :, :stop]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        self.key_buffer, self.value_buffer = (buffer.index_select(0, indices) for buffer in (self.key_buffer, self.value_buffer))
        self.keys, self.values = self.key_buffer[:, :, : self.slots.stop], self.value_buffer[:, :, : self.slots.stop]


def slot_cache(slots: Slots) -> Cache:
    # Declared as a class, used as whatever makes a layer: here one that knows the slots.
    return Cache(layer_class_to_replicate=partial(SlotLayer, slots))  # type: ignore[arg-type]


def _with_room(buffer: Tensor, slots: int) -> Tensor:
    batch, heads, held, width = buffer.shape
    if slots <= held:
        return buffer
    grown = buffer.new_zeros((batch, heads, slots + ROOM, width))  # not empty: a masked NaN would still be a NaN
    grown[:, :, :held] = buffer
    return grown
