"""Items by equal codes, without a Python object per item: a catalogue may have millions."""

from collections.abc import Iterator

import numpy as np

from stages.shared.core.progress import tracked


def prefix_numbers(codes_NL: np.ndarray) -> np.ndarray:
    """Equal rows get equal numbers, [N], from 0, ascending with the rows."""
    order, opens = _in_order(codes_NL)
    numbers = np.empty(len(codes_NL), dtype=np.int64)
    numbers[order] = np.cumsum(opens) - 1
    return numbers


def prefix_groups(codes_NL: np.ndarray, only: np.ndarray | None = None) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """(all codes but the last, the items that have them); prefixes ascending, items ascending. `only`: of these items."""
    items = np.arange(len(codes_NL)) if only is None else only
    prefixes = codes_NL[items, :-1]
    order, opens = _in_order(prefixes)
    starts = np.flatnonzero(opens)
    ends = np.r_[starts, len(items)][1:]
    items, ordered = items[order], prefixes[order]
    for start, end in tracked(zip(starts.tolist(), ends.tolist(), strict=True), "prefixes assigned", len(starts), unit="prefix"):
        yield tuple(ordered[start].tolist()), items[start:end]


def _in_order(codes_NL: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What sorts the rows, and which of the sorted ones differ from the row above, [N] both."""
    # lexsort sorts by its last key first, so the levels go in backwards.
    order = np.lexsort(codes_NL.T[::-1])
    ordered = codes_NL[order]
    opens = np.ones(len(codes_NL), dtype=bool)
    opens[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return order, opens
