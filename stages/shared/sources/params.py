"""The keys of section `ingest` that say where the data come from; the stages fetch and ingest both read them."""

import os
import re
from pathlib import Path
from typing import Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from stages.shared.core.outputs import DATA
from stages.shared.core.params import Section

# fmt: off
Source = Literal[
    "movielens-100k", "movielens-1m", "movielens-10m", "movielens-25m", "movielens-32m", "amazon-2014", "amazon-2018", "amazon-2023",
    "goodreads", "steam", "yelp", "kuairec", "mind", "folder", "table", "synthetic",
]
# fmt: on
YELP = "https://business.yelp.com/data/resources/open-dataset/"
RAW = DATA / "raw"  # the output of the stage fetch


class SourceParams(Section):
    source: Source = Field("movielens-100k", description="folder: its layout is recognised by the names of its files; table: see table")
    folder: str = Field(str(RAW), description="the raw files; data/raw = those that the stage fetch puts there")
    category: str = Field(
        "",
        description="as in the names of the official files: of Amazon e.g. Beauty (2014), All_Beauty (2018, 2023); of Goodreads a genre "
        "as poetry, empty = all",
    )

    @field_validator("folder")
    @classmethod
    def is_a_path_dvc_can_compare(cls, folder: str) -> str:
        if not folder:
            raise ValueError(f"a folder is expected; {RAW} is the one that the stage fetch fills")
        # DVC compares deps and outs as texts: ./data/raw would not be the output of fetch.
        if folder != (plain := os.path.normpath(folder)):
            raise ValueError(f"write the path as {plain}: dvc.yaml names it as a dependency")
        return folder

    @model_validator(mode="after")
    def source_has_what_it_needs(self) -> Self:
        if self.source in ("folder", "table", "mind") and not self.has_folder:
            raise ValueError(
                f"source: {self.source} needs folder, the folder that holds the raw files (got {RAW}, which is for fetched ones)"
            )
        if self.source == "yelp" and not self.has_folder:
            raise ValueError(f"source: yelp needs folder: Yelp hands its files to those who accept its terms, at {YELP}")
        if self.source.startswith("amazon") and not self.category:
            raise ValueError(f"source: {self.source} needs category, as in the names of the official files (e.g. Beauty, All_Beauty)")
        if self.category and not re.fullmatch(r"[A-Za-z0-9_]+", self.category):
            spelling = "write it as in the official files: letters, digits and _ (All_Beauty)"
            raise ValueError(f"category: '{self.category}' is no name of a category; {spelling}")
        return self

    @property
    def has_folder(self) -> bool:
        """Whether the raw files are in a folder that the user keeps, so that nothing is fetched."""
        return Path(self.folder) != RAW


class FetchParams(SourceParams):
    """What the stage fetch reads of the section `ingest`. The other keys are ingest's, and checked there."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)
