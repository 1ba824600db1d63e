"""Rows of the log as integers, put in the order in which each user took things, each pair of user and item once.

The order is by user first, so users whole can be sorted by themselves: in parts that fit into the processor's cache, on all its cores.
"""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stages.ingest.build.ids import counts
from stages.ingest.readers.ahead import ahead

PART = 2**19  # rows


@dataclass(frozen=True)
class CodedRows:
    """row, nanos: None where the rows stand in the order of the file and no time has parts of a second."""

    user_N: NDArray[np.int32]
    item_N: NDArray[np.int32]
    time_N: NDArray[np.int64]
    row_N: NDArray[np.int64] | None = None
    nanos_N: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.user_N)

    def at(self, places: slice | NDArray[np.intp]) -> "CodedRows":
        row_N = None if self.row_N is None else self.row_N[places]
        nanos_N = None if self.nanos_N is None else self.nanos_N[places]
        return CodedRows(self.user_N[places], self.item_N[places], self.time_N[places], row_N, nanos_N)


def first_pairs(rows: CodedRows, items: int) -> CodedRows:
    """Sorted by user, time and row, of each pair the earliest. Overwrites `rows`, of which the result has the memory."""
    rows_U = counts(rows.user_N)
    parts = max(1, len(rows) // PART)
    users = bounds(rows_U, parts)
    ends = np.concatenate([[0], np.cumsum(rows_U)])[users]
    if (rows.user_N[1:] >= rows.user_N[:-1]).all():  # by user already, as most logs are
        places: list[slice | NDArray[np.intp]] = [slice(start, end) for start, end in pairwise(ends)]
        out = rows
    else:
        # The rows of each part, in the order they have: a stable sort of a small number a row.
        number_U = np.repeat(np.arange(parts, dtype=np.uint16), np.diff(users))
        by_part = np.argsort(number_U[rows.user_N], kind="stable")
        places = [by_part[start:end] for start, end in pairwise(ends)]
        out = CodedRows(np.empty_like(rows.user_N), np.empty_like(rows.item_N), np.empty_like(rows.time_N))
    filled = 0
    for part in ahead(partial(_first_of_part, rows, items), places):
        # Never beyond what has been read: a part has no more rows than it had.
        new = slice(filled, filled + len(part))
        out.user_N[new], out.item_N[new], out.time_N[new] = part.user_N, part.item_N, part.time_N
        filled += len(part)
    return CodedRows(out.user_N[:filled], out.item_N[:filled], out.time_N[:filled])


def bounds(rows_U: NDArray[np.int64], parts: int) -> list[int]:
    """User codes between which `parts` parts lie, of about as many rows each; a user is never cut. The last is the number of users."""
    ends_U = np.cumsum(rows_U)
    wanted = ends_U[-1] * np.arange(1, parts) // parts if len(ends_U) else np.arange(0)
    return [0, *(np.searchsorted(ends_U, wanted) + 1).tolist(), len(rows_U)]


def _first_of_part(rows: CodedRows, items: int, places: slice | NDArray[np.intp]) -> CodedRows:
    part = rows.at(places)
    ordered = part.at(by_user_and_time(part))
    first_N = first_of_each_pair(ordered, items)
    return ordered if first_N.all() else ordered.at(np.flatnonzero(first_N))


def by_user_and_time(rows: CodedRows) -> NDArray[np.intp]:
    """What sorts by user, then time, to the nanosecond, then row."""
    if not len(rows):
        return np.arange(0)
    if rows.row_N is not None and rows.nanos_N is not None:
        return np.lexsort((rows.row_N, rows.nanos_N, rows.time_N, rows.user_N))
    user, earliest = int(rows.user_N.min()), int(rows.time_N.min())
    user_bits, time_bits = ((int(column.max()) - low).bit_length() for column, low in ((rows.user_N, user), (rows.time_N, earliest)))
    if user_bits + time_bits > 63:
        return np.lexsort((rows.time_N, rows.user_N))
    key_N = (rows.user_N - np.int64(user)) << time_bits
    key_N |= rows.time_N - earliest
    return _stable_order(key_N, user_bits + time_bits)


def first_of_each_pair(rows: CodedRows, items: int) -> NDArray[np.bool_]:
    """Which rows are the first of their user and item."""
    first_N = np.ones(len(rows), dtype=bool)
    if not len(rows):
        return first_N
    user = int(rows.user_N.min())
    item_bits = items.bit_length()
    key_N = (rows.user_N - np.int64(user)) << item_bits
    key_N |= rows.item_N
    bits = (int(rows.user_N.max()) - user).bit_length() + item_bits
    # The sort is stable and the rows are in the order of time, so the first of equal keys is the earliest.
    order = _stable_order(key_N, bits)
    key_N = key_N[order]
    first_N[order[1:][key_N[1:] == key_N[:-1]]] = False
    return first_N


def _stable_order(key_N: NDArray[np.int64], bits: int) -> NDArray[np.intp]:
    """What sorts the keys of so many bits, equal ones by their places."""
    place_bits = (len(key_N) - 1).bit_length()
    if bits + place_bits > 63:
        return np.argsort(key_N, kind="stable")
    # The place is put behind the key: then numbers are sorted by themselves, in a fraction of the time.
    packed_N = key_N << place_bits
    packed_N |= np.arange(len(key_N))
    packed_N.sort()
    packed_N &= (1 << place_bits) - 1
    return packed_N
