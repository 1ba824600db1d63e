"""The log as integers, and what is left of it after the filters. 20 million rows take about a gigabyte here."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.ingest.build.ids import counts, densify
from stages.ingest.build.kcore import core
from stages.ingest.build.pairs import read_pairs
from stages.ingest.build.splits import SPLITS, places, require_all, split_codes, warm_users
from stages.ingest.params import IngestParams
from stages.ingest.readers.raw import RawLog
from stages.shared.core.errors import StageError
from stages.shared.core.schemas import INTERACTIONS, USERS


@dataclass(frozen=True)
class Interactions:
    """`table`: INTERACTIONS, but `split` an Enum (a byte a row; see with_text). `item_ids`: source ids, by dense id.

    `dropped`: interactions, which with those of `table` add up to the rows of the log; users or items where the name says so.
    """

    table: pl.DataFrame
    users: pl.DataFrame
    item_ids: pl.Series
    dropped: dict[str, int]


def interactions(raw: RawLog, known_items: pl.Series, params: IngestParams) -> Interactions:
    """Filters, orders, splits and numbers the log. `known_items`: the usable items, sorted.

    The order of the steps: rows without a usable item, low ratings, a user's repeats of an item (the earliest stays, ties by row), the
    k-core, the latest `max_history` of each user, the split. The k-core comes before the cap on purpose: it says who has enough in the log,
    the cap says how much of that is learnt from. After the cap (and after users whom the split leaves out) an item may have fewer than
    `min_item_interactions`: to go round again would take items out of capped histories and let older interactions back in, without end.
    """
    if params.split == "global_time" and raw.time == "order":
        raise StageError(f"ingest.split global_time needs times, and {raw.name} has none; set ingest.split to leave_one_out or positions")
    read = read_pairs(raw, known_items, params.min_rating)
    pairs, user_ids = read.table, read.user_ids
    rejected = raw.interaction_rows - pairs.height - read.duplicates - read.low_rated
    dropped = {"rejected": rejected, "below_min_rating": read.low_rated, "duplicates": read.duplicates}
    counts_before = _counts(pairs)
    pairs, dropped["interactions_outside_core"] = _keep(
        pairs, core(pairs["user"].to_numpy(), pairs["item"].to_numpy(), params.min_interactions, params.min_item_interactions)
    )
    if pairs.is_empty():
        few = f"no user has {params.min_interactions} interactions or more{_conditions(params)}"
        raise StageError(f"{few}; lower ingest.min_interactions or give more data")
    counts_after = _counts(pairs)
    dropped |= {"users_outside_core": counts_before[0] - counts_after[0], "items_outside_core": counts_before[1] - counts_after[1]}

    if params.max_history:
        place_N, lengths_U = places(pairs["user"].to_numpy())
        latest = lengths_U[pairs["user"].to_numpy()] - place_N <= params.max_history
        pairs, dropped["beyond_max_history"] = _keep(pairs, latest)
    else:
        dropped["beyond_max_history"] = 0

    codes = split_codes(pairs["user"].to_numpy(), pairs["timestamp"].to_numpy(), params)
    dropped |= {"cold_users": 0, "interactions_of_cold_users": 0}
    if params.split == "global_time":
        warm = warm_users(pairs["user"].to_numpy(), codes, params.min_base)[pairs["user"].to_numpy()]
        codes = codes[warm]
        require_all(codes, f"of users with {params.min_base} interactions in base; change the shares or lower ingest.min_base")
        pairs, dropped["interactions_of_cold_users"] = _keep(pairs, warm)
        dropped["cold_users"] = counts_after[0] - pairs["user"].n_unique()
    table, users, item_ids = _number(pairs, codes, user_ids, known_items, params.keep_items)
    dropped["items_not_kept"] = len(known_items) - len(item_ids)
    return Interactions(table, users, item_ids, dropped)


def with_text(table: pl.DataFrame) -> pl.DataFrame:
    """`table` of Interactions as INTERACTIONS."""
    return table.with_columns(pl.col("split").cast(pl.String)).select(list(INTERACTIONS))


def _keep(pairs: pl.DataFrame, mask: NDArray[np.bool_]) -> tuple[pl.DataFrame, int]:
    """The rows under the mask, and how many went."""
    if mask.all():
        return pairs, 0  # no second copy of a long log
    kept = pairs.filter(pl.Series(mask))
    return kept, pairs.height - kept.height


def _counts(pairs: pl.DataFrame) -> tuple[int, int]:
    return int(np.count_nonzero(counts(pairs["user"].to_numpy()))), int(np.count_nonzero(counts(pairs["item"].to_numpy())))


def _conditions(params: IngestParams) -> str:
    conditions = [f"items with {params.min_item_interactions}"] if params.min_item_interactions else []
    conditions += [f"ratings of {params.min_rating}"] if params.min_rating else []
    return f" (among {' and '.join(conditions)} or more)" if conditions else ""


def _number(
    pairs: pl.DataFrame, codes: NDArray[np.int8], user_ids: pl.Series, known_items: pl.Series, keep_items: str
) -> tuple[pl.DataFrame, pl.DataFrame, pl.Series]:
    """Dense ids, positions and splits: the table, USERS, and the kept items' source ids."""
    user_N, kept_ids = densify(pairs["user"].to_numpy(), user_ids)
    item_N, item_ids = (pairs["item"].to_numpy(), known_items) if keep_items == "all" else densify(pairs["item"].to_numpy(), known_items)
    split = pl.Series("split", SPLITS, dtype=pl.Enum(SPLITS)).gather(codes)
    table = pl.DataFrame({"user": user_N, "item": item_N, "timestamp": pairs["timestamp"], "split": split})
    if not table["user"].is_sorted():  # the ids of the kept users may be numbers where those of all are not, and sort otherwise
        table = table.sort("user", maintain_order=True)
    position = pl.Series("position", places(table["user"].to_numpy())[0])
    users = pl.DataFrame({"user": np.arange(len(kept_ids), dtype=np.int32), "source_id": kept_ids}, schema=USERS)
    return table.select("user", "item", position, "timestamp", "split"), users, item_ids
