"""A key-value cache with spare room: transformers' own one copies everything it holds at every step."""

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

ROOM = 64  # steps between two copies


class RoomyLayer(DynamicLayer):
    """Keys and values are views [B, heads, length, head_dim] of buffers that hold up to ROOM steps more."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.key_buffer = self.value_buffer = key_states.new_empty((0, 0, 0, 0))
        start = self.get_seq_length()
        stop = start + key_states.shape[-2]
        if stop > self.key_buffer.shape[-2]:
            self.key_buffer = _grown(self.key_buffer, key_states, start, stop)
            self.value_buffer = _grown(self.value_buffer, value_states, start, stop)
        self.key_buffer[:, :, start:stop] = key_states
        self.value_buffer[:, :, start:stop] = value_states
        self.keys, self.values = self.key_buffer[:, :, :stop], self.value_buffer[:, :, :stop]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        length = self.get_seq_length()
        self.key_buffer = self.key_buffer.index_select(0, indices)
        self.value_buffer = self.value_buffer.index_select(0, indices)
        self.keys, self.values = self.key_buffer[:, :, :length], self.value_buffer[:, :, :length]


def _grown(old: Tensor, new: Tensor, start: int, stop: int) -> Tensor:
    batch, heads, _, width = new.shape
    buffer = torch.empty((batch, heads, stop + ROOM, width), dtype=new.dtype, device=new.device)
    if start:
        buffer[:, :, :start] = old[:, :, :start]
    return buffer
