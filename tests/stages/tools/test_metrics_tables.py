from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from stages.shared.core.errors import StageError
from stages.tools.metrics_tables import METRICS, PAGE, keys, with_tables

ROOT = Path(__file__).resolve().parents[3]


class Inner(BaseModel):
    share: float = Field(description="a share")


class Deep(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Inner] = Field(init=False)

    n: int = Field(description="a count")


class Outer(BaseModel):
    n: int = Field(description="a count")
    by_kind: dict[str, dict[str, Inner]] = Field(description="two mappings deep")
    one: Deep | None = Field(None, description="may be absent")
    again: Deep | None = Field(None, description="of a model that was spelt out")


def test_the_tables_in_the_docs_are_up_to_date():
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert with_tables(page) == page, "rewrite them: python -m stages.tools.metrics_tables"


def test_every_field_is_described():
    for model in METRICS.values():
        assert all(description not in ("", "None") for _, description in keys(model))


def test_keys_of_models_within_models():
    assert [key for key, _ in keys(Outer)] == ["n", "by_kind", "by_kind.<name>.<name>.share", "one", "one.n", "one.<metric>.share", "again"]


def test_a_page_without_the_comments_is_an_error():
    with pytest.raises(StageError, match="begin metrics of evaluate"):
        with_tables("# Stages\n")
