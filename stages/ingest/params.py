"""Section `ingest` of params.yaml."""

from typing import Literal, Self

from pydantic import Field, model_validator

from stages.shared.params import Section


class IngestParams(Section):
    source: Literal["movielens-100k", "folder"] = Field("movielens-100k", description="movielens-100k is fetched; folder is read from disk")
    folder: str = Field("", description="holds *.inter and *.item (RecBole), or u.data and u.item (GroupLens)")
    min_interactions: int = Field(20, ge=1, description="users with fewer are left out")
    base_share: float = Field(0.45, gt=0, lt=1, description="first share of each user's sequence: the pre-ranker and all statistics")
    valid_positions: int = Field(2, ge=1, description="positions per user before the test ones")
    test_positions: int = Field(8, ge=1, description="last positions per user")

    @model_validator(mode="after")
    def folder_goes_with_source(self) -> Self:
        if (self.source == "folder") != bool(self.folder):
            raise ValueError("set folder together with source: folder, and leave it empty otherwise")
        return self
