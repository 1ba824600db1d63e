"""Items by equal codes, without a Python object per item: a catalogue may have millions."""

from collections.abc import Iterator

import numpy as np
from tqdm import tqdm


def group_numbers(codes_NL: np.ndarray) -> np.ndarray:
    """Equal rows get equal numbers, [N], from 0."""
    if codes_NL.shape[1] == 0:
        return np.zeros(len(codes_NL), dtype=np.int64)
    order = np.lexsort(codes_NL.T[::-1])
    ordered = codes_NL[order]
    numbers = np.empty(len(codes_NL), dtype=np.int64)
    numbers[order] = np.cumsum(np.r_[False, (ordered[1:] != ordered[:-1]).any(axis=1)])
    return numbers


def prefix_groups(codes_NL: np.ndarray, only: np.ndarray | None = None) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """(all codes but the last, the items that have them); prefixes ascending, items ascending. `only`: of these items."""
    items = np.arange(len(codes_NL)) if only is None else only
    prefixes = codes_NL[items, :-1]
    order = np.lexsort(prefixes.T[::-1])
    ordered = prefixes[order]
    starts = np.flatnonzero(np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)]) if len(items) else np.zeros(0, dtype=np.int64)
    ends = np.r_[starts, len(items)][1:]
    items = items[order]
    for start, end in tqdm(zip(starts.tolist(), ends.tolist(), strict=True), total=len(starts), desc="assign", mininterval=2.0, delay=3.0):
        yield tuple(ordered[start].tolist()), items[start:end]
