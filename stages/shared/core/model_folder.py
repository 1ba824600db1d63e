"""Model folders and texts named in params.yaml. Each is a dependency of its stage in dvc.yaml, so the value is a path, as DVC writes it."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from stages.shared.core.errors import StageError

NAMED_MODELS = "infra/models"  # folders that mean a packaged model, a new one, or none: dvc.yaml needs a path that exists


def _path_for_dvc(value: str) -> str:
    word = value.rpartition(":")[2]
    if value in ("", "packaged-minilm", "scratch", "packaged:smollm2-135m"):  # their spelling before 0.2.0
        raise ValueError(f"a path is expected; write it as {NAMED_MODELS}/{word or 'none'}")
    if value != (plain := os.path.normpath(value)):
        raise ValueError(f"write the path as {plain}: dvc.yaml names it as a dependency")
    return value


def _plain_path(value: str) -> str:
    if not value or value != os.path.normpath(value):
        raise ValueError(f"write the path as {os.path.normpath(value or 'FOLDER/FILE')}: dvc.yaml names it as a dependency")
    return value


def how_to_make(folder: Path) -> str:
    """The remedy where data/STAGE/model is missing or broken; empty for another folder, which was brought here."""
    is_made = folder.name == "model" and folder.parent.parent.name == "data"
    return f"to make it: gr2 run {folder.parent.name}" if is_made else ""


def refuse_own_code(folder: Path) -> None:
    """StageError for a model that its library can load only by running code out of the folder.

    The libraries' own messages advise to trust such code; it is never run here. A model that brings code and that transformers knows
    by itself is loaded without that code.
    """
    from transformers import CONFIG_MAPPING  # takes seconds; the parameters alone need none of it

    config, modules = _json(folder / "config.json"), _json(folder / "modules.json")
    kinds = [str(module.get("type")) for module in modules if isinstance(module, dict)] if isinstance(modules, list) else []
    foreign_code = [kind for kind in kinds if not kind.startswith("sentence_transformers.")]
    if isinstance(config, dict) and config.get("auto_map") and config.get("model_type") not in CONFIG_MAPPING:
        foreign_code.append(f"config.json: auto_map, model_type {config.get('model_type')}")
    if foreign_code:
        files = ", ".join(path.name for path in sorted(folder.glob("*.py"))) or "code from elsewhere"
        raise StageError(
            f"{folder}: this model brings its own program code ({files}; {', '.join(foreign_code)}), which is never run here; "
            "choose a model that transformers or sentence-transformers knows by itself (docs/security.md)"
        )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # whoever reads it next says what is wrong with it
        return None


ModelFolder = Annotated[str, AfterValidator(_path_for_dvc)]
TextFile = Annotated[str, AfterValidator(_plain_path)]
