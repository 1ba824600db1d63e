"""What the stages need of a data set, as far as it can be told before they run. `gr2 validate` asks.

A fault is what a stage would fail on; a warning, what makes a result weak.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import polars as pl

from stages.embed.params import LEAST_ITEMS
from stages.ingest.build.quarantine import UNKNOWN_ITEM
from stages.retrieve.given.given import Reading
from stages.retrieve.given.placing import IN_BASE, PlacedSlate
from stages.retrieve.params import RetrieveParams
from stages.tools.check_params import Params
from stages.tools.intake.overlay import ITEMS_A_CODE

FEW_SLATES = 200  # the interval of NDCG@5 is then about 0.05 wide to each side
MOST_ALIKE = 0.1  # share of items that have another's text


class DataCheck(NamedTuple):
    name: str
    level: Literal["ok", "warning", "fault"]
    found: str
    needed: str
    remedy: str


def checks(params: Params, metrics: dict[str, Any], log: pl.DataFrame, has_titles: bool) -> list[DataCheck]:
    """metrics: metrics.json of ingest. log: user, timestamp and split of its interactions."""
    return [
        _rows(params, metrics),
        _users(params, metrics),
        *_splits(metrics),
        *([] if params.retrieve.model == "given" else [_test_slates(params, metrics), _candidates(params, metrics, log)]),
        _codes(params, metrics),
        _times(params, metrics),
        _folds(params, log),
        *_titles(params, metrics, has_titles),
    ]


def list_checks(params: RetrieveParams, placed: Sequence[PlacedSlate], reading: Reading, max_slates: int = 0) -> list[DataCheck]:
    """Of lists that were logged, where each was put. max_slates: as evaluate has it, 0 = all."""
    read = reading.rows.total()
    left_out = sorted(reading.left_out.items(), key=lambda reason: -reason[1])
    why = "; ".join(f"{count:,}: {reason}" for reason, count in left_out)
    found = [_refused_lists(params, reading)]
    after = read - reading.left_out[IN_BASE]  # those of base are for the statistics; where lists are the log, there are many
    counts = Counter(slate.split for slate in placed)
    told = f"{len(placed):,} of {read:,} lists have a place in a user's sequence{f' (left out: {why})' if why else ''}"
    lower = "lower ingest.base_share, or see docs/logged-slates.md"
    found.append(_check("lists", 2 * len(placed) >= after, "warning", told, "half of those after base", lower))
    remedy = "their taken items must be in the log, under the same ids, after the base split (ingest.base_share)"
    for split in ("train", "test"):
        found.append(_check(f"lists {split}", counts[split] > 0, "fault", f"{counts[split]:,}", "one at least", remedy))
    # No stage learns from these: retrieve only says how unlike the training ones they are.
    found.append(_check("lists valid", counts["valid"] > 0, "warning", f"{counts['valid']:,}", "some, to compare ranks with", remedy))
    return [*found, _measured(counts["test"], max_slates, f"{counts['test']:,} lists", "lists")]


def _measured(slates: int, max_slates: int, found: str, more: str) -> DataCheck:
    """Whether as many are measured on as an interval needs, and which of the two numbers is to be raised."""
    remedies = [f"raise ingest.test_positions or give more {more}"] if slates < FEW_SLATES else []
    if capped := 0 < max_slates < slates:
        found += f", and evaluate.max_slates takes {max_slates:,} of them"
        remedies = ["raise evaluate.max_slates (0: all)", *remedies]
    remedy = f"{'; '.join(remedies)}; gr2 power says how many slates show a gain"
    enough = (max_slates if capped else slates) >= FEW_SLATES
    return _check("test slates", enough, "warning", found, f"{FEW_SLATES} for an interval that says something", remedy)


def _refused_lists(params: RetrieveParams, reading: Reading) -> DataCheck:
    """As retrieve will have it, of each file."""
    by_file = Counter(file for file, _, _ in reading.refused)
    allowed = all(count <= params.given.max_bad_share * reading.rows[file] for file, count in by_file.items())
    reasons = Counter(reason for _, _, reason in reading.refused).most_common(5)
    first = {reason: f"{file}, row {row}" for file, row, reason in reversed(sorted(reading.refused))}
    found = "; ".join(f"{count:,} refused: {reason} (first: {first[reason]})" for reason, count in reasons) or "none is refused"
    needed = f"no more than retrieve.given.max_bad_share ({params.given.max_bad_share:g}) of a file"
    return _check("rows of lists", allowed, "fault", found, needed, "correct the rows, or the columns in retrieve.given")


def _check(name: str, ok: bool, level: Literal["warning", "fault"], found: str, needed: str = "", remedy: str = "") -> DataCheck:
    return DataCheck(name, "ok" if ok else level, found, needed, remedy)


def _rows(params: Params, metrics: dict[str, Any]) -> DataCheck:
    bad = sum(sum(reasons.values()) for reasons in metrics["rejected"].values())
    reasons = "; ".join(f"{rows:,} of {file}: {reason}" for file, counts in metrics["rejected"].items() for reason, rows in counts.items())
    found = f"{metrics['raw']['rows']:,} rows of the log, {bad:,} of both files left out{f' ({reasons})' if reasons else ''}"
    dropped = sum(reasons.get(UNKNOWN_ITEM, 0) for reasons in metrics["rejected"].values()) if params.ingest.missing_items == "drop" else 0
    few = bad - dropped <= params.ingest.max_bad_share * metrics["raw"]["rows"] / 2
    return _check("rows", few, "warning", found, "fewer than half of ingest.max_bad_share", "correct the rows")


def _users(params: Params, metrics: dict[str, Any]) -> DataCheck:
    dropped, ingest = metrics["dropped"], params.ingest
    found = (
        f"{metrics['users']:,} users, {metrics['items']:,} items and {metrics['interactions']:,} interactions are left; "
        f"{dropped['users_outside_core'] + dropped['cold_users']:,} users had too few"
    )
    most = dropped["users_outside_core"] + dropped["cold_users"] <= metrics["users"]
    remedy = f"lower ingest.min_interactions ({ingest.min_interactions}) or min_item_interactions ({ingest.min_item_interactions})"
    return _check("users", most, "warning", found, "most of the users", remedy)


def _splits(metrics: dict[str, Any]) -> Iterator[DataCheck]:
    for split in ("train", "valid", "test"):
        count = metrics["by_split"].get(split, 0)
        yield _check(
            f"split {split}",
            count > 0,
            "fault",
            f"{count:,} interactions",
            "one at least",
            "users are too short for ingest.split: lower ingest.base_share, min_base or test_positions, or set split: leave_one_out",
        )


def _test_slates(params: Params, metrics: dict[str, Any]) -> DataCheck:
    slates = metrics["by_split"].get("test", 0)
    return _measured(slates, params.evaluate.max_slates, f"at most {slates:,} hold their target", "users")


def _candidates(params: Params, metrics: dict[str, Any], log: pl.DataFrame) -> DataCheck:
    """As retrieve has it: of the last slate of the longest user, candidates that he has not taken."""
    wanted, items, longest = params.retrieve.candidates, metrics["items"], metrics["sequence_length"]["max"]
    found = f"{items:,} items, of which a user takes up to {longest:,}"
    needed = f"{wanted} more than a user takes (retrieve.candidates)"
    return _check(
        "candidates",
        items - longest + 1 >= wanted and items > wanted,
        "fault",
        found,
        needed,
        "lower retrieve.candidates or ingest.max_history",
    )


def _codes(params: Params, metrics: dict[str, Any]) -> DataCheck:
    size, levels, items = params.tokenize.codebook_size, params.tokenize.levels, metrics["items"]
    room = size**levels
    found = f"{items:,} items, {room:,} semantic IDs ({levels} levels of {size} codes)"
    if items > room:
        return DataCheck("semantic IDs", "fault", found, "one for each item", "raise tokenize.codebook_size or levels")
    needed = f"{ITEMS_A_CODE} items a code: with fewer, codes of the later levels stay unused (tokenize.usage_gate)"
    return _check("semantic IDs", items >= ITEMS_A_CODE * size, "warning", found, needed, "lower tokenize.codebook_size")


def _times(params: Params, metrics: dict[str, Any]) -> DataCheck:
    span = metrics["time"]
    known = span.get("first_date") is not None
    found = f"{span['first_date']} to {span['last_date']}" if known else "no times: the order of the file counts"
    remedy = "name the column in ingest.table.timestamp; without it slates of different users have no order in time"
    return _check("times", known, "warning", found, "times, for folds and splits by time", remedy)


def _folds(params: Params, log: pl.DataFrame) -> DataCheck:
    moments = log.filter(pl.col("split") == "train")["timestamp"].n_unique()
    found = f"training slates at {moments:,} different times"
    needed = f"more than traces.time_folds ({params.traces.time_folds})"
    return _check(
        "folds in time", moments > params.traces.time_folds, "fault", found, needed, "lower traces.time_folds, or give more users"
    )


def _titles(params: Params, metrics: dict[str, Any], has_titles: bool) -> Iterator[DataCheck]:
    learns = params.embed.collaborative.mode != "none"
    if not has_titles:
        found = "none: items are called by their ids"
        if params.prompt.titles:
            yield DataCheck(
                "titles", "fault", found, "titles, which prompt.titles shows", "set prompt.titles: false, or name ingest.table.title"
            )
        else:
            remedy = "set embed.collaborative.mode: concat, which learns from what is taken one after the other"
            yield _check("titles", learns, "warning", found, "titles, or vectors that are learnt", remedy)
    else:
        alike = metrics["items_sharing_their_text"]
        found = f"{alike:,} of {metrics['items']:,} items have the text of another"
        yield _check(
            "titles", alike <= MOST_ALIKE * metrics["items"], "warning", found, "texts that differ", "name brand, categories or year"
        )
    if learns:
        yield _check(
            "items to learn from", metrics["items"] >= LEAST_ITEMS, "fault", f"{metrics['items']:,}", f"{LEAST_ITEMS}", "give more data"
        )
