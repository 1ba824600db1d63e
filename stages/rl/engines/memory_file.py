"""A safetensors file in memory, written again and again, that other processes of this user may read while this one lives.

Its name is under /proc, so that nothing of it is left when the process dies, however it dies; its pages are those of the host, once for all
engines of a machine (memfd_create(2)). Format: https://huggingface.co/docs/safetensors, a header and the tensors behind it.
"""

import json
import math
import mmap
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


class MemoryFile:
    """shapes: by name, in the order in which the tensors lie. dtype: of them all."""

    def __init__(self, shapes: Mapping[str, torch.Size], dtype: str):
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.shapes, offset = dict(shapes), 0
        header: dict[str, object] = {}
        self._starts: dict[str, int] = {}
        for name, shape in shapes.items():
            end = offset + math.prod(shape) * self.dtype.itemsize
            header[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
            self._starts[name], offset = offset, end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # so that tensors lie on whole words
        first = 8 + len(text)
        self._starts = {name: first + start for name, start in self._starts.items()}
        self._descriptor = os.memfd_create("gr2-weights")
        os.ftruncate(self._descriptor, first + offset)
        self._pages = mmap.mmap(self._descriptor, first + offset)
        self._pages[:first] = len(text).to_bytes(8, "little") + text

    @property
    def path(self) -> Path:
        return Path(f"/proc/{os.getpid()}/fd/{self._descriptor}")

    def write(self, name: str, tensor: Tensor) -> None:
        """Of any precision, on any device."""
        shape = self.shapes[name]
        place = torch.frombuffer(self._pages, dtype=self.dtype, count=math.prod(shape), offset=self._starts[name])
        place.view(shape).copy_(tensor)

    def close(self) -> None:
        # The pages go with the last tensor on them and the last reader's mapping.
        os.close(self._descriptor)
