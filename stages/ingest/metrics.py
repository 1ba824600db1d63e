"""data/ingest/metrics.json; data/ingest/card.md tells the same to people."""

from pydantic import Field

from stages.shared.core.stage_metrics import StageMetrics


class RawFileMetrics(StageMetrics):
    sha256: str = Field(description="of the file")
    bytes: int = Field(description="size of the file")
    converted_from: str | None = Field(None, description="its encoding, by its byte-order mark; absent where it was read as it is")


class RawMetrics(StageMetrics):
    name: str = Field(description="the first file that was read")
    sha256: str = Field(description="of that file")
    bytes: int = Field(description="size of that file")
    files: dict[str, RawFileMetrics] = Field(description="every file that was read, by name")
    source: str = Field(description="the data set, for people")
    licence: str = Field(description="its licence in one sentence")
    rows: int = Field(description="rows of the log, good and bad, without those of forgotten users")
    item_rows: int = Field(description="rows of the item file, good and bad")


class TimeSpan(StageMetrics):
    """Empty for a split without rows."""

    first: int | None = Field(None, description="earliest timestamp")
    last: int | None = Field(None, description="latest timestamp")
    first_date: str | None = Field(None, description="earliest timestamp as a date (ISO 8601, UTC), if the source has times")
    last_date: str | None = Field(None, description="latest timestamp as a date, if the source has times")
    unit: str | None = Field(None, description="unit of first and last: seconds since 1970, or position in the user's sequence")


class SplitMetrics(StageMetrics):
    interactions: int = Field(description="rows of the split")
    users: int = Field(description="users with a row in it")
    items: int = Field(description="items with a row in it")
    time: TimeSpan = Field(description="its time span; empty for a split without rows")


class DroppedMetrics(StageMetrics):
    """Those that count interactions, and the rows of the table, add up to the rows of the log."""

    rejected: int = Field(description="rows of the log that could not be used")
    below_min_rating: int = Field(description="interactions rated below ingest.min_rating")
    duplicates: int = Field(description="repeats of a user's item; the earliest stays")
    interactions_outside_core: int = Field(description="interactions of users or items outside the k-core")
    users_outside_core: int = Field(description="users outside the k-core")
    items_outside_core: int = Field(description="items outside the k-core")
    beyond_max_history: int = Field(description="interactions older than the user's latest ingest.max_history")
    cold_users: int = Field(description="global_time: users with fewer than ingest.min_base interactions in base")
    interactions_of_cold_users: int = Field(description="global_time: their interactions")
    items_not_kept: int = Field(description="usable items of the item file that are not in items.parquet")


class CountDistribution(StageMetrics):
    min: int = Field(description="smallest count")
    p05: float = Field(description="5th percentile")
    p25: float = Field(description="25th percentile")
    median: float = Field(description="median")
    p75: float = Field(description="75th percentile")
    p95: float = Field(description="95th percentile")
    max: int = Field(description="largest count")
    mean: float = Field(description="mean")


class PopularityDistribution(CountDistribution):
    gini: float = Field(description="Gini coefficient; 0 means that all items are alike")


class ColdMetrics(StageMetrics):
    items_only_in_valid_or_test: int = Field(description="items without a row in base or train")
    test_targets_unseen_in_base: int = Field(description="test interactions with an item that is not in base")
    test_targets_unseen_in_base_share: float = Field(description="their share of the test interactions")


class SplitLeakChecks(StageMetrics):
    pairs_in_two_splits: int = Field(description="(user, item) pairs in two splits")
    held_out_before_training: int = Field(description="held-out interactions before a training one of the same user")
    # Absent where the split is not by time: there users' times overlap by design.
    splits_that_overlap_in_time: int | None = Field(
        None, description="global_time only: interactions at or after the first of a later split"
    )


class IngestMetrics(StageMetrics):
    raw: RawMetrics = Field(description="what was read")
    split: str = Field(description="ingest.split: positions, leave_one_out or global_time")
    users: int = Field(description="users in the tables")
    users_all_base: int = Field(description="users without valid and test interactions")
    items: int = Field(description="items in the tables")
    items_without_interactions: int = Field(description="items that nobody took (ingest.keep_items)")
    items_sharing_their_text: int = Field(description="items whose text another item has, too; three with one text are three")
    items_called_by_id: int | None = Field(
        None, description="ingest.missing_items id: items of the log that have no title in the item file"
    )
    interactions: int = Field(description="rows of interactions.parquet")
    sparsity: float = Field(description="1 - interactions / (users x items)")
    by_split: dict[str, int] = Field(description="split -> interactions")
    splits: dict[str, SplitMetrics] = Field(description="split -> its size and time span")
    time: TimeSpan = Field(description="time span of all interactions")
    rejected: dict[str, dict[str, int]] = Field(description="file -> reason -> rows that could not be used (quarantine.parquet)")
    forgotten_users: int | None = Field(None, description="users of ingest.forget found in the raw files; absent if it is empty")
    forgotten_rows: int | None = Field(None, description="rows of theirs that were left out; absent if ingest.forget is empty")
    forgotten_digests_without_user: int | None = Field(
        None, description="digests that match no user of the raw files; absent if ingest.forget is empty"
    )
    dropped: DroppedMetrics = Field(description="what the filters took out")
    sequence_length: CountDistribution = Field(description="interactions per user")
    item_popularity: PopularityDistribution = Field(description="interactions per item")
    cold: ColdMetrics = Field(description="no leak, but hard to rank")
    leak_checks: SplitLeakChecks = Field(description="counts of the leak checks; always 0, as a leak fails the stage")
