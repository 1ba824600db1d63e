"""The evaluation through vLLM, on the smoke run's models."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.support import project_clone
from tests.support.project_clone import SmokeRun

pytestmark = pytest.mark.slow


def shape(value: Any) -> Any:
    """`value` with every number and text replaced by its kind."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shape(part) for part in value]
    return "number" if isinstance(value, int | float) else type(value).__name__


def test_vllm_gives_the_same_figures(smoke: SmokeRun, tmp_path: Path) -> None:
    root = project_clone.clone(tmp_path / "project")
    project_clone.copy_data(smoke.root, root)
    engine = {"kind": "vllm", "max_model_len": 1024, "kv_cache_gb": 0.25, "batch_size": 16}
    project_clone.set_params(root, evaluate={"engine": engine})
    for name in ("evaluate", "report"):
        project_clone.stage(root, name)
    ours, theirs = (project_clone.metrics(folder, "report") for folder in (smoke.root, root))
    assert shape(theirs["models"]) == shape(ours["models"])
    for name in ("incoming", "lambdamart"):  # no engine in them
        assert theirs["models"][name] == ours["models"][name]
    tables = [pl.read_parquet(folder / "data/evaluate/outputs.parquet") for folder in (smoke.root, root)]
    texts = [table.filter(pl.col("kind") == "greedy")["text"] for table in tables]
    assert (texts[0] == texts[1]).mean() > 0.9, "greedy answers of the same weights"
