"""Prefixes with more items than last codes: the surplus moves to the next-best prefix rather than collide."""

from collections import Counter

import numpy as np
import torch

from stages.shared.core.errors import StageError
from stages.tokenize.assignment.assign import Taken, squared_distances
from stages.tokenize.assignment.prefix_groups import prefix_groups, prefix_numbers
from stages.tokenize.quantizers.codebook import beam_search

BEAM = 32  # prefixes looked at for each item that has to move, before the search that always ends well


def resolve_overflow(
    latents_ND: np.ndarray, codes_NL: np.ndarray, codebooks_LCD: np.ndarray, taken: Taken | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Codes in which no prefix has more items than free last codes, and the items that had to move.

    Of an overfull prefix those stay who would lose most: everybody's best other prefix is found by beam search, and the items with the
    smallest rise of ||latent - prefix||^2 go. Each goes to the best prefix of its beam with room left; where the whole beam is
    full, down the tree to the nearest code whose subtree has room, which finds a place whenever there is one. A moved item's last
    code is the nearest one. Raises StageError when there are more items than SIDs.
    """
    codebooks_LCD = codebooks_LCD.astype(np.float64)
    levels, size = codebooks_LCD.shape[:2]
    used = {prefix: len(codes) for prefix, codes in (taken or {}).items()}
    if len(codes_NL) + sum(used.values()) > size**levels:
        raise StageError(
            f"{len(codes_NL) + sum(used.values())} items but only {size}^{levels} = {size**levels} semantic IDs; "
            f"raise tokenize.codebook_size or tokenize.levels"
        )
    overfull = _overfull(codes_NL, size, used)
    if not overfull:
        return codes_NL, np.zeros(0, dtype=np.int64)
    room = _Room(codes_NL, size, used)
    moves = [_leavers(items, prefix, latents_ND, codebooks_LCD, len(items) - free) for prefix, items, free in overfull]
    # All leave before the first one enters, so that one overfull prefix can take in what another gives up.
    for leavers, _ in moves:
        for row in codes_NL[leavers, :-1]:
            room.leave(tuple(row.tolist()))
    resolved_NL = codes_NL.copy()
    for leavers, beams in moves:
        for item, beam in zip(leavers, beams, strict=True):
            prefix = next((candidate for candidate in map(tuple, beam.tolist()) if room.of(candidate) > 0), None)
            if prefix is None:
                prefix = room.nearest(latents_ND[item], codebooks_LCD)
            room.enter(prefix)
            rest = latents_ND[item] - sum(codebooks_LCD[level, code] for level, code in enumerate(prefix))
            resolved_NL[item] = [*prefix, int(squared_distances(rest[None], codebooks_LCD[-1]).argmin())]
    return resolved_NL, np.sort(np.concatenate([leavers for leavers, _ in moves]))


def beam_prefixes(latents_BD: np.ndarray, codebooks_LCD: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The best prefixes a beam search of `width` finds, [B, W, L - 1], and their ||latent - sum of codes||^2, [B, W], ascending."""
    prefixes, costs = beam_search(torch.from_numpy(latents_BD.astype(np.float64)), torch.from_numpy(codebooks_LCD[:-1]), width)
    return prefixes.numpy(), costs.numpy()


def _overfull(codes_NL: np.ndarray, size: int, used: dict[tuple[int, ...], int]) -> list[tuple[tuple[int, ...], np.ndarray, int]]:
    """(prefix, its items, its free last codes) of every prefix that cannot hold its items."""
    prefix_N = prefix_numbers(codes_NL[:, :-1])
    # Without SIDs given before, the Python loop below is over the few groups that are too large, not over a million.
    suspects = None if used else np.flatnonzero(np.bincount(prefix_N)[prefix_N] > size)
    overfull = []
    for prefix, items in prefix_groups(codes_NL, only=suspects):
        free = size - used.get(prefix, 0)
        if len(items) > free:
            overfull.append((prefix, items, free))
    return overfull


def _leavers(
    items: np.ndarray, prefix: tuple[int, ...], latents_ND: np.ndarray, codebooks_LCD: np.ndarray, surplus: int
) -> tuple[np.ndarray, np.ndarray]:
    """The `surplus` items that lose least by leaving `prefix`, and their other prefixes, best first, [surplus, beam, L - 1]."""
    regrets, beams = [], []
    # Blocks of 256 items bound the memory of the beam, items x BEAM x codes.
    for part in np.array_split(items, -(-len(items) // 256)):
        others, costs = beam_prefixes(latents_ND[part], codebooks_LCD, BEAM)
        residuals = latents_ND[part] - sum(codebooks_LCD[level, code] for level, code in enumerate(prefix))
        costs = np.where((others == prefix).all(axis=2), np.inf, costs)
        regrets.append(costs.min(axis=1) - np.square(residuals).sum(axis=1))
        beams.append(others)
    leave = np.argsort(np.concatenate(regrets), kind="stable")[:surplus]
    return items[leave], np.concatenate(beams)[leave]


class _Room:
    """How many more items fit below any node of the tree of prefixes."""

    def __init__(self, codes_NL: np.ndarray, size: int, used: dict[tuple[int, ...], int]):
        self.size, self.depth = size, codes_NL.shape[1]
        self.items: Counter[tuple[int, ...]] = Counter()
        prefixes, counts = np.unique(codes_NL[:, :-1], axis=0, return_counts=True)
        for row, count in zip(prefixes.tolist(), counts.tolist(), strict=True):
            self._add(tuple(row), count)
        for prefix, count in used.items():
            self._add(prefix, count)

    def _add(self, prefix: tuple[int, ...], count: int) -> None:
        for length in range(len(prefix) + 1):
            self.items[prefix[:length]] += count

    def enter(self, prefix: tuple[int, ...]) -> None:
        self._add(prefix, 1)

    def leave(self, prefix: tuple[int, ...]) -> None:
        self._add(prefix, -1)

    def of(self, prefix: tuple[int, ...]) -> int:
        return self.size ** (self.depth - len(prefix)) - self.items[prefix]

    def nearest(self, latent_D: np.ndarray, codebooks_LCD: np.ndarray) -> tuple[int, ...]:
        """Down the tree by the nearest code whose subtree has room."""
        prefix: tuple[int, ...] = ()
        rest = latent_D.astype(np.float64)
        for codebook_CD in codebooks_LCD[:-1]:
            order = squared_distances(rest[None], codebook_CD)[0].argsort(kind="stable")
            code = next(int(code) for code in order if self.of((*prefix, int(code))) > 0)
            prefix, rest = (*prefix, code), rest - codebook_CD[code]
        return prefix
