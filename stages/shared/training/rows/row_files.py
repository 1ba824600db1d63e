"""Rows of training on disk, mapped into memory: all processes of a node read the same pages, and none holds them as Python's numbers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from stages.shared.lm.encoding import WeightedExample

TYPES = {"ids": np.uint32, "weights": np.float32, "starts": np.uint32}  # what a batch of tensors has of them, too
ROWS, HELD_OUT = "rows", "held_out"  # folders of a stage: to learn from, and to validate by
ENDS, CUT, ORDER = "ends.npy", "cut.npy", "order.npy"  # ends [N, 3]: of each row in the three files above


def write_rows(folder: Path, rows: Sequence[WeightedExample]) -> None:
    """A row that comes several times, as traces do over epochs, is written once."""
    folder.mkdir(parents=True)
    distinct = list({id(row): row for row in rows}.values())
    places = {id(row): place for place, row in enumerate(distinct)}
    ends = np.zeros((len(distinct), len(TYPES)), dtype=np.int64)
    for column, (name, kind) in enumerate(TYPES.items()):
        with (folder / name).open("wb") as file:
            for place, row in enumerate(distinct):
                values = np.asarray(getattr(row, name), dtype=kind)
                file.write(values.tobytes())
                ends[place, column] = len(values)
    np.save(folder / ENDS, ends.cumsum(axis=0), allow_pickle=False)
    np.save(folder / CUT, np.array([row.cut for row in distinct], dtype=np.int64), allow_pickle=False)
    np.save(folder / ORDER, np.array([places[id(row)] for row in rows], dtype=np.int64), allow_pickle=False)


class LazyRows(Sequence[WeightedExample], ABC):
    """Rows that are made when they are asked for."""

    order: Sequence[int] | NDArray[np.int64]  # what stands at each place

    def __len__(self) -> int:
        return len(self.order)

    @overload
    def __getitem__(self, place: int) -> WeightedExample: ...
    @overload
    def __getitem__(self, place: slice) -> list[WeightedExample]: ...
    def __getitem__(self, place: int | slice) -> WeightedExample | list[WeightedExample]:
        if isinstance(place, slice):
            return [self.made(int(row)) for row in self.order[place]]
        return self.made(int(self.order[place]))

    @abstractmethod
    def made(self, row: int) -> WeightedExample: ...


class RowFiles(LazyRows):
    """What `write_rows` was given, in its order; weights in single precision, as a batch has them."""

    def __init__(self, folder: Path):
        self.order = np.load(folder / ORDER, allow_pickle=False)
        self.ends: NDArray[np.int64] = np.load(folder / ENDS, allow_pickle=False)
        self.cut: NDArray[np.int64] = np.load(folder / CUT, allow_pickle=False)
        # An empty file cannot be mapped.
        self.parts = [
            np.memmap(folder / name, dtype=kind, mode="r") if (folder / name).stat().st_size else np.zeros(0, dtype=kind)
            for name, kind in TYPES.items()
        ]

    def made(self, row: int) -> WeightedExample:
        begins = self.ends[row - 1] if row else np.zeros(len(TYPES), dtype=np.int64)
        ids, weights, starts = (
            part[begin:end].tolist() for part, begin, end in zip(self.parts, begins.tolist(), self.ends[row].tolist(), strict=True)
        )
        return WeightedExample(ids, weights, starts, int(self.cut[row]))


class InOrder(LazyRows):
    """`rows` at the places `order`."""

    def __init__(self, rows: Sequence[WeightedExample], order: Sequence[int]):
        self.rows, self.order = rows, order

    def made(self, row: int) -> WeightedExample:
        return self.rows[row]
