"""Stages that dvc.yaml writes once and DVC runs many times: `foreach` over a list, each a stage of its own, named NAME@ITEM."""

from collections.abc import Iterator

from tasks.project.templates import Templates
from tasks.system.errors import ProjectError

ITEM = "${item}"


def group_of(stage: str) -> str:
    """The name that stands in dvc.yaml: embed_shard of embed_shard@3."""
    return stage.split("@")[0]


def each(name: str, entry: object, templates: Templates) -> Iterator[tuple[str, object]]:
    """The stage, or one for each item of its `foreach`, with the item in place; none for an empty list."""
    if not isinstance(entry, dict) or "foreach" not in entry:
        yield name, entry
        return
    body = entry.get("do")
    if not isinstance(body, dict):
        raise ProjectError(f"dvc.yaml: stages.{name}: no 'do' beside 'foreach'; it holds cmd, deps and outs of each")
    for item in templates.items(entry["foreach"], f"dvc.yaml: stages.{name}.foreach"):
        yield f"{name}@{item}", _with_item(body, item)


def stage_names(document: object, templates: Templates) -> list[str]:
    """Of all stages of a dvc.yaml, as dvc.lock has them; `document`: what it holds."""
    stages = document.get("stages") if isinstance(document, dict) else None
    return [name for group, entry in (stages or {}).items() for name, _ in each(str(group), entry, templates)]


def _with_item(value: object, item: str) -> object:
    if isinstance(value, str):
        return value.replace(ITEM, item)
    if isinstance(value, list):
        return [_with_item(part, item) for part in value]
    return {_with_item(key, item): _with_item(part, item) for key, part in value.items()} if isinstance(value, dict) else value
