from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from stages.shared.core.errors import StageError
from stages.tools.metrics_tables import METRICS, PAGE, keys, with_tables

ROOT = Path(__file__).resolve().parents[3]


class Inner(BaseModel):
    share: float = Field(description="a share")


class Entry(BaseModel):
    rows: int = Field(description="a count")


class Deep(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Inner] = Field(init=False)

    n: int = Field(description="a count")


class Outer(BaseModel):
    n: int = Field(alias="n@5", description="a count; its key cannot be the name of a field")
    listed: list[Entry] = Field(description="a list of models")
    by_kind: dict[str, dict[str, Inner]] = Field(description="two mappings deep")
    one: Deep | None = Field(None, description="may be absent")
    again: Deep | None = Field(None, description="of a model that was spelt out")


def test_the_tables_in_the_docs_are_up_to_date():
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert with_tables(page) == page, "rewrite them: python -m stages.tools.metrics_tables"


def test_every_field_is_described():
    for model in METRICS.values():
        assert all(description not in ("", "None") for _, description in keys(model))


def test_every_stage_that_writes_metrics_has_a_model():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert set(METRICS) == {name for name, stage in stages.items() if stage.get("metrics")}


def test_no_model_takes_a_key_that_is_not_described():
    for stage, model in METRICS.items():
        assert model.model_config.get("extra") == "forbid", stage


def test_keys_of_models_within_models():
    names = ["n@5", "listed", "listed.rows", "by_kind", "by_kind.<name>.<name>.share", "one", "one.n", "one.<metric>.share", "again"]
    assert [key for key, _ in keys(Outer)] == names


def test_a_page_without_the_comments_is_an_error():
    with pytest.raises(StageError, match="begin metrics of ingest"):
        with_tables("# Stages\n")
