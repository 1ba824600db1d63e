"""Model folders named in params.yaml. Each is a dependency of its stage in dvc.yaml, so the value must be a path, as DVC writes it."""

import os
from typing import Annotated

from pydantic import AfterValidator

NAMED_MODELS = "infra/models"  # folders that mean a packaged model, a new one, or none: dvc.yaml needs a path that exists


def _path_for_dvc(value: str) -> str:
    word = value.rpartition(":")[2]
    if value in ("", "packaged-minilm", "scratch", "packaged:smollm2-135m"):  # their spelling before 0.2.0
        raise ValueError(f"a path is expected; write it as {NAMED_MODELS}/{word or 'none'}")
    if value != (plain := os.path.normpath(value)):
        raise ValueError(f"write the path as {plain}: dvc.yaml names it as a dependency")
    return value


ModelFolder = Annotated[str, AfterValidator(_path_for_dvc)]
