"""The two tables the stage writes, made from arrays of codes."""

import numpy as np
import polars as pl

from stages.shared.core.schemas import SID_MAP, SIDS
from stages.shared.slates.sids import SID_BEGIN, SID_END, code_token

# The ignored types: `cast` takes classes of types as well as types, as our schemas hold them, but its stub says types alone.


def sid_table(codes_NL: np.ndarray) -> pl.DataFrame:
    """One row per item, in item order."""
    return pl.DataFrame({"item": np.arange(len(codes_NL)), "codes": codes_NL, "sid": sid_texts(codes_NL)}).cast(SIDS)  # type: ignore[arg-type]


def sid_map(codes_NL: np.ndarray, source_ids: list[str], retired_RL: np.ndarray, retired_ids: list[str]) -> pl.DataFrame:
    """Every SID with its item, and below them those of items that left, sorted by codes."""
    codes = np.concatenate([codes_NL, retired_RL])
    items = pl.Series("item", [*range(len(codes_NL)), *[None] * len(retired_RL)], dtype=pl.Int32)
    order = np.lexsort(codes.T[::-1])
    table = pl.DataFrame({"sid": sid_texts(codes), "codes": codes, "item": items, "source_id": [*source_ids, *retired_ids]})
    return table[order].cast(SID_MAP)  # type: ignore[arg-type]


def sid_texts(codes_NL: np.ndarray) -> pl.Series:
    """The SIDs as the language model writes them: sid_text of stages/shared/slates/sids.py, for a whole catalogue at once."""
    columns = [pl.Series(f"{level}", codes) for level, codes in enumerate(codes_NL.T)]
    tokens = [pl.format(code_token(level, 0).replace("0", "{}"), pl.col(f"{level}")) for level in range(codes_NL.shape[1])]
    return pl.DataFrame(columns).select(sid=pl.concat_str([pl.lit(SID_BEGIN), *tokens, pl.lit(SID_END)]))["sid"]
