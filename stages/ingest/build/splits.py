"""Gives each interaction its split: base, train, valid or test; in that order along each user's time."""

import numpy as np
from numpy.typing import NDArray

from stages.ingest.build.ids import AT_ONCE, counts
from stages.ingest.params import IngestParams
from stages.shared.core.errors import StageError

SPLITS = ("base", "train", "valid", "test")  # a split's code is its place here

Ints = NDArray[np.integer]
Codes = NDArray[np.int8]


def places(user_N: Ints) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Rows sorted by user -> the place of each within its user from 0, and the length of each user's sequence [users]."""
    lengths_U = counts(user_N)
    starts_U = np.cumsum(lengths_U) - lengths_U
    place_N = np.arange(len(user_N), dtype=np.int32)
    place_N -= np.repeat(starts_U.astype(np.int32), lengths_U)
    return place_N, lengths_U


def split_codes(user_N: Ints, timestamp_N: Ints, params: IngestParams) -> Codes:
    """The split of each row; rows sorted by user, then time."""
    if params.split == "global_time":
        return by_time(timestamp_N, params)
    lengths_U = counts(user_N)
    cuts = by_positions(lengths_U, params) if params.split == "positions" else leave_one_out(lengths_U, params)
    sizes_US = np.diff(np.stack([np.zeros_like(lengths_U), *cuts, lengths_U], axis=1), axis=1)
    return np.repeat(np.tile(np.arange(len(SPLITS), dtype=np.int8), len(lengths_U)), sizes_US.ravel())


def by_positions(lengths_U: Ints, params: IngestParams) -> list[Ints]:
    """Where train, valid and test begin for each user: the last `test_positions` are test, the `valid_positions` before them valid, the
    first floor(base_share * n) base, the rest train. A user too short for `min_base` of base and one of train is base throughout:
    a history, but nothing to rank.
    """
    base = np.floor(lengths_U * params.base_share).astype(np.int64)
    # From the end: every user has the same number of test positions, whatever the length.
    test = lengths_U - params.test_positions
    valid = test - params.valid_positions
    short = (base < params.min_base) | (base >= valid)
    return [np.where(short, lengths_U, cut) for cut in (base, valid, test)]


def leave_one_out(lengths_U: Ints, params: IngestParams) -> list[Ints]:
    """Where train, valid and test begin for each user: the last is test, the last but one valid; of the m before those, the first
    floor(base_share * m), but at least `min_base`, are base and the rest, if any, train. With fewer than min_base + 2 a user is base
    throughout.
    """
    valid, test = lengths_U - 2, lengths_U - 1
    # Of what remains, not of the whole: of a short history that would be all, and train would get nothing.
    base = np.clip(np.floor(valid * params.base_share).astype(np.int64), params.min_base, None)
    short = valid < params.min_base
    return [np.where(short, lengths_U, cut) for cut in (np.minimum(base, valid), valid, test)]


def by_time(timestamp_N: Ints, params: IngestParams) -> Codes:
    """One cut for all users at a moment: before it at most the wanted share of all interactions, since equal times never straddle a cut."""
    total = len(timestamp_N)
    shares = (params.base_share, 1 - params.valid_share - params.test_share, 1 - params.test_share)
    # A share that rounds up to everything must still name an interaction.
    ranks = [min(round(share * total), total - 1) for share in shares]
    moments = np.partition(timestamp_N, sorted(set(ranks)))[ranks]
    codes = _after(timestamp_N, list(moments))
    require_all(codes, "too many interactions at one time, or too few in all; change the shares, or set ingest.split to leave_one_out")
    return codes


def warm_users(user_N: Ints, codes_N: Codes, min_base: int) -> NDArray[np.bool_]:
    """Which users [users] have `min_base` interactions in base."""
    return np.bincount(user_N[codes_N == 0], minlength=int(user_N.max()) + 1) >= min_base


def require_all(codes_N: Codes, why: str) -> None:
    """Fails where one of the splits is empty."""
    rows_S = np.bincount(codes_N, minlength=len(SPLITS))
    if empty := [name for name, count in zip(SPLITS, rows_S, strict=True) if count == 0]:
        raise StageError(f"ingest.split global_time leaves nothing for {', '.join(empty)} ({why})")


def counts_by_split(code_N: Ints, id_N: Ints, size: int) -> NDArray[np.int64]:
    """[SPLITS, size]: how often each id, below `size`, has each split."""
    counts_SI = np.zeros(len(SPLITS) * size, dtype=np.int64)
    step = max(AT_ONCE, len(counts_SI))
    for start in range(0, len(id_N), step):
        part = slice(start, start + step)
        counts_SI += np.bincount(code_N[part] * np.int64(size) + id_N[part], minlength=len(counts_SI))
    return counts_SI.reshape(len(SPLITS), size)


def _after(value_N: Ints, cuts: list[Ints]) -> Codes:
    """How many of the three ascending cuts a value has reached: its split's code."""
    codes = np.zeros(len(value_N), dtype=np.int8)
    for cut in cuts:
        codes += value_N >= cut
    return codes
