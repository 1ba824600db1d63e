"""Section `ingest` of params.yaml."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.shared.core.params import Section
from stages.shared.sources.params import SourceParams

LARGEST_WORLD = 20_000_000_000  # weights computed in making it: some minutes


class TableParams(Section):
    """A log of one's own: one or two files and the names of their columns; of an object within a row, a path as user.id.

    The ending says the format: .parquet, .csv, .tsv or .jsonl, the text ones also with .gz.
    """

    interactions: str = Field("", description="file, within ingest.folder; or a pattern of several parts, as plays/*.parquet")
    items: str = Field("", description="file or pattern, within ingest.folder; empty = the log itself has the columns of items")
    separator: str = Field("", description="between the columns of text files; empty = by the ending: a comma, in .tsv a tab")
    encoding: Literal["utf-8", "latin-1"] = Field("utf-8", description="of text files; latin-1: of lines that are not UTF-8")
    user: str = Field("user", description="column of interactions")
    item: str = Field("item", description="column of interactions")
    item_separator: str = Field(
        "", description="between several items in a cell of item or item_id, a row each; lists of JSON and Parquet too; empty = one a cell"
    )
    timestamp: str = Field("timestamp", description="column of interactions; empty = the order of the file")
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    time_format: str = Field("", description="of times that are text: iso, or as strftime writes them (%d.%m.%Y %H:%M); empty = numbers")
    rating: str = Field("", description="column of interactions: numbers, or true and false; empty = none")
    decimal: Literal[".", ","] = Field(".", description="in numbers that are text: a comma where they are written as 4,5")
    item_id: str = Field("item", description="column of items; without a file of items it is that of the log")
    title: str = Field("title", description="column of items; empty = none, and items are called by their ids")
    brand: str = Field("", description="column of items; empty = none")
    categories: str = Field("", description="column of items: a list, or text cut at category_separator; empty = none")
    category_separator: str = Field("|", min_length=1)
    year: str = Field("", description="column of items; empty = none")
    licence: str = Field("not stated", description="a sentence for the data card")

    @property
    def in_log(self) -> bool:
        """Whether items are those of the log: an item then stands in many rows."""
        return self.items in ("", self.interactions)


class WorldParams(Section):
    """The synthetic store (docs/synthetic-world.md). Strengths are natural logarithms: 0 = none, 1 = e times as likely."""

    seed: int = Field(7, ge=0)
    users: int = Field(900, ge=1, le=200_000)
    shortest: int = Field(30, ge=2, description="interactions per user, at least")
    longest: int = Field(60, ge=2, le=500, description="and at most; every number between is as likely")
    items: int = Field(500, ge=4, le=20_000)
    departments: int = Field(6, ge=1, le=12, description="upper level of the categories")
    categories: int = Field(6, ge=1, le=8, description="lower level: per department")
    brands: int = Field(5, ge=1, le=20, description="per department")
    types: int = Field(32, ge=1, le=64, description="kinds of users, each with tastes of its own")
    popularity: float = Field(0.8, ge=0, le=3, description="exponent of Zipf's law")
    taste: float = Field(0.5, ge=0, le=5, description="strength: standard deviation over categories, and over brands")
    follow: float = Field(2.5, ge=0, le=8, description="strength: the category that goes with the one taken before")
    loyalty: float = Field(1.5, ge=0, le=8, description="strength: added where it is also of the same brand")
    memory: int = Field(2, ge=1, le=10, description="last items that are followed up")
    memory_decay: float = Field(0.5, gt=0, le=1, description="weight of the last item but one against the last, and so on")

    @model_validator(mode="after")
    def fits(self) -> Self:
        if self.shortest > self.longest:
            raise ValueError(f"world.shortest ({self.shortest}) is above world.longest ({self.longest})")
        # Nobody takes an item twice: near the end of a long history the choice would be forced, and no taste shows in it.
        if 2 * self.longest > self.items:
            raise ValueError(
                f"a user who takes {self.longest} of {self.items} items has too little choice; set items to 2 * longest or more"
            )
        if self.items < self.departments * self.categories:
            raise ValueError(
                f"{self.items} items cannot fill {self.departments} * {self.categories} categories; raise items, or lower these"
            )
        if (weights := self.users * self.longest * self.items) > LARGEST_WORLD:
            raise ValueError(f"users * longest * items is {weights:.1e}, at most {LARGEST_WORLD:.1e} is made; lower one of them")
        return self


class IngestParams(SourceParams):
    table: TableParams = Field(default_factory=TableParams)
    world: WorldParams = Field(default_factory=WorldParams, description="of source synthetic")
    max_bad_share: float = Field(0.01, ge=0, lt=1, description="the stage fails when a larger share of the rows of a file cannot be used")
    missing_items: Literal["refuse", "id", "drop"] = Field(
        "refuse",
        description="items of the log that the item file lacks, or that have no title there: their rows count as bad, the items are "
        "called by their ids, or their rows are left out",
    )
    forget: list[Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] = Field(
        default_factory=list, description="digests of users who are left out before anything else; gr2 forget USER --apply adds one"
    )
    forget_salt: str = Field("", description="stands before the id in each digest of forget; with another one none of them matches")
    min_rating: float = Field(0.0, ge=0, description="interactions rated lower are left out; those without a rating stay")
    min_interactions: int = Field(20, ge=1, description="users with fewer are left out")
    min_item_interactions: int = Field(0, ge=0, description="items with fewer are left out; with min_interactions to the fixpoint (k-core)")
    max_history: int = Field(0, ge=0, description="interactions kept per user, the latest; 0 = all")
    keep_items: Literal["all", "interacted"] = Field("all", description="interacted: only items that some kept user took")
    split: Literal["positions", "leave_one_out", "global_time"] = "positions"
    base_share: float = Field(
        0.45,
        gt=0,
        lt=1,
        description="first share of each user's sequence (leave_one_out: of what is before the last two; global_time: of all interactions)",
    )
    min_base: int = Field(5, ge=1, description="base interactions without which a user has nothing to rank")
    valid_positions: int = Field(2, ge=1, description="split positions: per user before the test ones")
    test_positions: int = Field(8, ge=1, description="split positions: last per user")
    valid_share: float = Field(0.1, gt=0, lt=1, description="split global_time: share of all interactions before the test ones")
    test_share: float = Field(0.1, gt=0, lt=1, description="split global_time: last share of all interactions")

    @model_validator(mode="after")
    def keys_go_together(self) -> Self:
        if self.source == "table" and not self.table.interactions:
            raise ValueError("source: table needs table.interactions, a file in folder; gr2 init FOLDER finds the keys of table")
        # The Bayes order is computed from whole histories; filtered ones would make it the order of another world.
        if self.source == "synthetic" and (self.min_item_interactions or self.max_history or self.keep_items != "all"):
            raise ValueError(
                "source: synthetic takes min_item_interactions: 0, max_history: 0, keep_items: all; the Bayes order needs whole histories"
            )
        if self.base_share + self.valid_share + self.test_share >= 1 and self.split == "global_time":
            raise ValueError("base_share + valid_share + test_share leave no share for train; lower one")
        return self
