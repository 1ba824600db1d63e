"""Reads a stage's section of params.yaml into its pydantic model; an unknown or mistyped key is an error."""

import difflib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from stages.shared.core.errors import StageError
from stages.shared.core.yaml_text import load_yaml

# Today's name of each key and section that was renamed, so that the error for an older params.yaml says what to write instead.
RENAMED_SECTIONS = {"retrieve": "prerank"}
RENAMED_KEYS = {
    "retrieve.evidence_last": "feature_history",
    "retrieve.evidence_levels": "feature_bins",
    "prompt.taste": "top_categories",
    "traces.blocks": "time_folds",
    "rl.guided": "constrained",
    "evaluate.guided": "constrained",
}
MOVED_KEYS = {"evaluate.resamples": "report", "evaluate.examples": "report"}  # key -> the section that has it now
REMOVED_KEYS = {  # key -> what to do instead
    "midtrain.copy_circuit": "no weight is placed by hand any more; remove it",
    "midtrain.ordering_share": "its task is now midtrain.sorting_share",
    "midtrain.reading_share": "its task is now part of midtrain.judging_share",
    "midtrain.skill_share": "its task is now midtrain.judging_share",
    "quantize.bits": "the width is part of quantize.scheme (int8, w8a8, int4, int3); remove it",
    "sft.no_reasoning_arm": "set prompt.reasoning: false, or run the control: gr2 run --control no-reasoning",
}


class Section(BaseModel):
    """Base of every section: no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ComputeSection(Section):
    """What every stage that computes takes. The thread count is a parameter because it changes the last bits of floating-point sums."""

    seed: int = Field(7, ge=0)
    threads: int = Field(2, ge=1, description="threads of torch, BLAS and OpenMP")


def check_shards(section: str, shards: list[int], reads: str, folder: str, otherwise: str) -> None:
    """Of a stage that can be split: shards are numbered from 0, and `reads` is their `folder`, or `otherwise` where there are none.

    ValueError, for a validator of the section.
    """
    if shards != list(range(len(shards))):
        raise ValueError(f"shards are numbered from 0, as {list(range(max(2, len(shards))))} (got {shards})")
    if reads != (fitting := folder if shards else otherwise):
        raise ValueError(f"{section}.shards is {shards} and {section}.reads is {reads}; set {section}.reads to {fitting}")


S = TypeVar("S", bound=Section)


def load_params(section: str, model: type[S], path: Path = Path("params.yaml")) -> S:
    """The section named `section` of the YAML file at `path`, checked.

    Raises StageError naming the file, the key and, for an unknown key, its new name or the nearest valid one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StageError(f"{path}: no such file; run from the root of the project, where {path.name} is") from None
    except UnicodeDecodeError as error:
        raise StageError(f"{path}: not valid UTF-8 YAML: {error}") from None
    return section_of(section, model, load_yaml(text, str(path)), str(path))


def section_of(section: str, model: type[S], document: object, source: str) -> S:
    """The section named `section` of `document`, which was read from `source`; see load_params for the errors."""
    if not isinstance(document, dict) or section not in document:
        old = RENAMED_SECTIONS.get(section)
        if isinstance(document, dict) and old in document:
            raise StageError(f"{source}: the section '{old}' is now named '{section}'; rename it")
        raise StageError(f"{source}: the section '{section}' is missing; copy it from infra/profiles/default.yaml")
    return validate_section(section, model, document[section], source)


def validate_section(section: str, model: type[S], values: object, source: str) -> S:
    """`values` as a `model`; see load_params for the errors."""
    if not isinstance(values, dict):
        kind = "nothing" if values is None else f"{values!r}, a {type(values).__name__}"
        raise StageError(f"{source}: {section}: a mapping of keys is expected (got {kind}); copy it from infra/profiles/default.yaml")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_explain(section, model, item, source) for item in error.errors()]
        raise StageError("\n".join(lines)) from None


def _explain(section: str, model: type[BaseModel], item: ErrorDetails, source: str) -> str:
    key = ".".join([section, *map(str, item["loc"])])
    if item["type"] == "value_error" and isinstance(item["input"], dict):  # of keys that do not go together, which the message names
        return f"{source}: {key}: {item['msg'].removeprefix('Value error, ')}"
    if key.endswith("key_variable"):  # a key may have been put where its variable's name belongs: it is not repeated
        return f"{source}: {key}: the name of an environment variable in capitals is expected, never the key itself"
    if item["type"] != "extra_forbidden":
        return f"{source}: {key}: {item['msg']} (got {item['input']!r}, a {type(item['input']).__name__})"
    if key in RENAMED_KEYS:
        return f"{source}: {key}: this key is now named '{RENAMED_KEYS[key]}'; rename it"
    if key in MOVED_KEYS:
        return f"{source}: {key}: this key is now in the section '{MOVED_KEYS[key]}'; move it there"
    if key in REMOVED_KEYS:
        return f"{source}: {key}: this key is gone; {REMOVED_KEYS[key]}"
    valid = _fields_at(model, item["loc"][:-1])
    near = difflib.get_close_matches(str(item["loc"][-1]), valid, n=1, cutoff=0.0)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"{source}: {key}: unknown key{hint} (valid: {', '.join(valid)})"


def _fields_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the (nested) model at `loc`."""
    for name in loc:
        annotation = model.model_fields[str(name)].annotation if str(name) in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
