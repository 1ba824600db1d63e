"""The trie of the semantic IDs that exist, in compressed sparse rows, for constrained decoding.

As in YouTube's STATIC (vectorised constrained decoding on accelerators) the trie is a handful of flat arrays, so what may follow
a batch of prefixes is a few gathers and no walk over Python objects.
"""

from pathlib import Path
from typing import Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from stages.shared.core.errors import StageError

DEAD = -1  # the node of a prefix that no SID has


class SidTrie:
    """Nodes are numbered breadth first, the root 0. The edges of node n are `codes[offsets[n]:offsets[n + 1]]`, ascending.

    Breadth first, edge e leads to node e + 1, so children need no separate array. The last len(items) nodes are the leaves,
    and leaf k is the SID of `items[k]`. `offsets` [nodes + 1] and `codes` [nodes - 1] are int32; of N SIDs of L levels there are at
    most N * L + 1 nodes.
    """

    def __init__(self, offsets: np.ndarray, codes: np.ndarray, items: np.ndarray, levels: int, codebook_size: int):
        self.offsets, self.codes, self.items = offsets, codes, items
        self.levels, self.codebook_size = levels, codebook_size
        self.first_leaf = len(codes) + 1 - len(items)

    @classmethod
    def from_codes(cls, codes_NL: np.ndarray, codebook_size: int, rows: np.ndarray | None = None) -> Self:
        """The trie of the rows of `codes_NL` (or only of `rows`); row n is the SID of item n. StageError when two of them are the
        same."""
        chosen = np.arange(len(codes_NL)) if rows is None else rows
        count, levels = len(chosen), codes_NL.shape[1]
        order = chosen[np.lexsort(codes_NL[chosen].T[::-1])]
        sorted_NL = codes_NL[order]
        # Level by level: a row opens a new node when it differs from the row above in any code up to this level.
        opens = np.ones(count, dtype=bool)
        edges, parents = [], []
        parent_of_row = np.zeros(count, dtype=np.int64)
        first = 1  # number of the first node at this level
        for level in range(levels):
            differs = np.r_[True, (sorted_NL[1:, level] != sorted_NL[:-1, level])]
            opens = differs if level == 0 else opens | differs
            firsts = np.flatnonzero(opens)
            edges.append(sorted_NL[firsts, level])
            parents.append(parent_of_row[firsts])
            parent_of_row = first + np.cumsum(opens) - 1
            first += len(firsts)
        if not opens.all():
            row = int(np.flatnonzero(~opens)[0])
            raise StageError(
                f"items {order[row - 1]} and {order[row]} have the same SID {sorted_NL[row].tolist()}; a trie leaf is one item"
            )
        children = np.bincount(np.concatenate(parents), minlength=first)
        offsets = np.r_[0, np.cumsum(children)].astype(np.int32)
        return cls(offsets, np.concatenate(edges).astype(np.int32), order.astype(np.int32), levels, codebook_size)

    def step(self, nodes_B: np.ndarray, codes_B: np.ndarray) -> np.ndarray:
        """The nodes after one more code, [B]; DEAD where no SID goes on that way (or went so far)."""
        alive_B = np.maximum(nodes_B, 0)
        # A dead node has no edges; node 0 takes its row in the arithmetic, and `exists_B` rules the row out at the end.
        low_B, high_B = self.offsets[alive_B].astype(np.int64), self.offsets[alive_B + 1].astype(np.int64)
        end_B = high_B.copy()
        while (low_B < high_B).any():  # binary search in every row of edges at once
            middle_B = (low_B + high_B) // 2
            less_B = (low_B < high_B) & (self.codes[np.minimum(middle_B, len(self.codes) - 1)] < codes_B)
            low_B, high_B = np.where(less_B, middle_B + 1, low_B), np.where(less_B, high_B, np.minimum(high_B, middle_B))
        exists_B = (nodes_B != DEAD) & (low_B < end_B)
        exists_B &= self.codes[np.minimum(low_B, len(self.codes) - 1)] == codes_B
        return np.where(exists_B, low_B + 1, DEAD)

    def walk(self, codes_BL: np.ndarray) -> np.ndarray:
        """The nodes at the end of the prefixes [B, any length up to the levels]; DEAD where no SID begins so."""
        nodes_B = np.zeros(len(codes_BL), dtype=np.int64)
        for codes_B in codes_BL.T:
            nodes_B = self.step(nodes_B, codes_B)
        return nodes_B

    def allowed(self, nodes_B: np.ndarray) -> np.ndarray:
        """Which codes may follow, bool [B, codebook_size]: the mask of constrained decoding. All False at a leaf and where DEAD."""
        mask_BC = np.zeros((len(nodes_B), self.codebook_size), dtype=bool)
        alive_B = np.maximum(nodes_B, 0)
        width_B = np.where(nodes_B == DEAD, 0, self.offsets[alive_B + 1] - self.offsets[alive_B])
        rows = np.repeat(np.arange(len(nodes_B)), width_B)
        # 0, 1, 2, ... within the edges of each row.
        within = np.arange(len(rows)) - np.repeat(np.cumsum(width_B) - width_B, width_B)
        mask_BC[rows, self.codes[self.offsets[alive_B[rows]] + within]] = True
        return mask_BC

    def item(self, codes_BL: np.ndarray) -> np.ndarray:
        """The items of whole SIDs, [B]; -1 for an SID without item."""
        leaves_B = self.walk(codes_BL)
        if codes_BL.shape[1] != self.levels:
            raise ValueError(f"{codes_BL.shape[1]} codes where an SID has {self.levels}")
        return np.where(leaves_B == DEAD, -1, self.items[np.maximum(leaves_B - self.first_leaf, 0)])

    def save(self, path: Path) -> None:
        shape = np.array([self.levels, self.codebook_size], dtype=np.int32)
        save_file({"offsets": self.offsets, "codes": self.codes, "items": self.items, "shape": shape}, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """StageError where the file is missing or damaged."""
        try:
            arrays = load_file(path)
            levels, codebook_size = map(int, arrays["shape"])
            return cls(arrays["offsets"], arrays["codes"], arrays["items"], levels, codebook_size)
        except FileNotFoundError:
            raise StageError(f"{path}: no such file; run the stage that makes it: gr2 run {path.parent.name}") from None
        except (SafetensorError, KeyError, ValueError) as error:
            raise StageError(f"{path}: not a readable trie ({error}); rerun: gr2 run {path.parent.name}") from None
