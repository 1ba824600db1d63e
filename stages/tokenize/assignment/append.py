"""New items join an earlier catalogue: no SID that was ever given changes or is given again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stages.shared.core.errors import StageError
from stages.shared.core.hashes import files_sha256
from stages.shared.core.schemas import SID_MAP, read_table
from stages.tokenize.assignment.assign import Taken
from stages.tokenize.measure import usage_counts
from stages.tokenize.params import TokenizeParams
from stages.tokenize.quantizers.quantizer import Quantizer


@dataclass(frozen=True)
class Catalogue:
    """An earlier output of this stage."""

    quantizer: Quantizer
    codes: np.ndarray  # [M, L], of every SID ever given
    source_ids: list[str]  # [M]

    @classmethod
    def load(cls, params: TokenizeParams) -> "Catalogue":
        folder = Path(params.append_to)
        files = [folder / "sid_map.parquet", folder / "codebooks.safetensors"]
        for file in files:
            if not file.exists():
                raise StageError(
                    f"{file}: no such file; tokenize.append_to must name a folder with sid_map.parquet and codebooks.safetensors"
                )
        if (actual_sha256 := files_sha256(files)) != params.append_sha256:
            raise StageError(
                f"tokenize.append_sha256 is '{params.append_sha256}' but {folder} has {actual_sha256}; "
                "set it to that if this is the catalogue to "
                f"extend. It is in params.yaml so that another catalogue counts as another parameter."
            )
        table = read_table(files[0], SID_MAP)
        codes = np.array(table["codes"].to_list(), dtype=np.int64)
        quantizer = Quantizer.load(files[1])
        if quantizer.codebooks_LCD.shape[:2] != (params.levels, params.codebook_size):
            raise StageError(
                f"{files[1]}: {' x '.join(map(str, quantizer.codebooks_LCD.shape[:2]))} codes, but tokenize.levels and codebook_size are "
                f"{params.levels} and {params.codebook_size}; an appended catalogue keeps its codebooks, so set both to its"
            )
        return cls(quantizer, codes, table["source_id"].to_list())

    def known(self, source_ids: list[str]) -> np.ndarray:
        """For each item its row in this catalogue, -1 for a new one."""
        rows = {source_id: row for row, source_id in enumerate(self.source_ids)}
        return np.array([rows.get(source_id, -1) for source_id in source_ids], dtype=np.int64)

    def taken(self) -> Taken:
        """All last codes ever given, by prefix: also of items that left the catalogue, whose SIDs live on in old logs and models."""
        table = pl.DataFrame({"prefix": self.codes[:, :-1], "last": self.codes[:, -1]})
        groups = table.with_columns(pl.col("prefix").arr.to_list()).group_by("prefix").agg(pl.col("last").unique())
        return {tuple(prefix): np.array(last) for prefix, last in groups.iter_rows()}


def drift(
    quantizer: Quantizer, embeddings_NE: np.ndarray, nearest_NL: np.ndarray, assigned_NL: np.ndarray, new_N: np.ndarray, codebook_size: int
) -> dict[str, Any]:
    """How well the old codebooks still fit, over the items that are here now.

    `error_nearest`: mean reconstruction error of old and of new items by their nearest codes, and new / old. `divergence_bits`: by
    level the Jensen-Shannon divergence between the use of codes by old and new items (0 = alike, 1 = disjoint). `moved`: share of
    old items whose nearest prefix is not the one they keep (their text or the embedding model changed).
    """
    old_N = ~new_N
    if not new_N.any() or not old_N.any():
        return {"old_items": int(old_N.sum()), "new_items": int(new_N.sum())}
    errors = quantizer.errors(embeddings_NE, nearest_NL)
    old_error, new_error = float(errors[old_N].mean()), float(errors[new_N].mean())
    old_use, new_use = usage_counts(nearest_NL[old_N], codebook_size), usage_counts(nearest_NL[new_N], codebook_size)
    moved = (nearest_NL[old_N, :-1] != assigned_NL[old_N, :-1]).any(axis=1)
    return {
        "old_items": int(old_N.sum()),
        "new_items": int(new_N.sum()),
        "error_nearest": {"old": round(old_error, 9), "new": round(new_error, 9), "ratio": round(new_error / max(old_error, 1e-12), 4)},
        "divergence_bits": [round(jensen_shannon(old, new), 4) for old, new in zip(old_use, new_use, strict=True)],
        "moved": round(float(moved.mean()), 6),
    }


def jensen_shannon(one_C: np.ndarray, other_C: np.ndarray) -> float:
    """Divergence of two counts, in bits."""
    p, q = one_C / one_C.sum(), other_C / other_C.sum()
    m = (p + q) / 2
    return float(sum((x[x > 0] * np.log2(x[x > 0] / m[x > 0])).sum() for x in (p, q)) / 2)
