"""The profiles that ship: complete, valid for every stage, and params.yaml is the default one."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from stages.shared.core.params import Section, validate_section
from stages.shared.slates.prompt_params import PromptParams
from stages.tools.check_params import check
from tasks.project.profiles import profile_names, render
from tests.support.project_clone import ROOT, STAGES

pytestmark = pytest.mark.slow
# fetch reads three keys of the section ingest; gr2 promote is no stage, and has a section.
SECTIONS = [*(stage for stage in STAGES if stage != "fetch"), "promote"]


def models() -> dict[str, type[Section]]:
    """section -> the pydantic model its stage reads it with."""
    found: dict[str, type[Section]] = {"prompt": PromptParams}
    for stage in SECTIONS:
        found[stage] = getattr(importlib.import_module(f"stages.{stage}.params"), f"{stage.capitalize()}Params")
    return found


def test_params_yaml_is_the_default_profile() -> None:
    assert (ROOT / "params.yaml").read_text(encoding="utf-8") == render(ROOT, "default")


@pytest.mark.parametrize("profile", profile_names(ROOT))
def test_every_section_is_valid(profile: str) -> None:
    document = yaml.safe_load(render(ROOT, profile))
    assert set(document) == {*SECTIONS, "prompt", "resources"}
    for section, model in models().items():
        validate_section(section, model, document[section], f"profile {profile}")


@pytest.mark.parametrize("data", ["default", "world", "logged", "smoke"])
def test_rl_by_relevances_goes_over_a_data_profile(data: str) -> None:
    assert check(render(ROOT, data, "relevance-rl"), "params.yaml") == []


def test_default_leaves_no_key_unsaid() -> None:
    document = yaml.safe_load(render(ROOT, "default"))
    for section, model in models().items():
        assert_complete(model, document[section], section)


def assert_complete(model: type[BaseModel], values: dict[str, Any], place: str) -> None:
    assert set(values) == set(model.model_fields), place
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            assert_complete(field.annotation, values[name], f"{place}.{name}")


def test_qwen3_8b_is_what_it_says() -> None:
    document = yaml.safe_load(render(ROOT, "qwen3-8b"))
    assert Path(document["midtrain"]["model"]).name == "Qwen3-8B"
    assert Path(document["traces"]["language_model"]["model"]).name == "Qwen3-32B"
    assert document["traces"]["teacher"] == "language_model" and document["traces"]["language_model"]["engine"]["kind"] == "vllm"
    for section in ("midtrain", "sft", "rl"):
        assert document[section]["processes"] == 8
        assert (ROOT / document[section]["deepspeed"]).is_file()
    assert document["midtrain"]["deepspeed"].endswith("zero3.json")
