"""The three stages that train a language model, each in two gloo processes under DeepSpeed."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.shared.core.outputs import read_json
from stages.shared.lm.models import load_model, load_tokenizer
from tasks.project.profiles import render
from tests.support.small_project import write_project

ROOT = Path(__file__).parents[4]
SMALL = {
    "midtrain": {"steps": 4, "batch_size": 2, "accumulate": 2, "log_every": 1},
    "sft": {"steps": 4, "batch_size": 2, "log_every": 1},
    "rl": {"steps": 2, "prompts": 3, "micro_prompts": 2, "group": 4, "max_tokens": 32, "precision": "bfloat16"},
}

pytestmark = pytest.mark.slow


def make_project(root: Path, zero: int, **more: Any) -> Path:
    """The smoke profile's model with fewer steps, under the project's own DeepSpeed configuration, its path relative to the project."""
    params = yaml.safe_load(render(ROOT, "smoke"))
    for stage, values in SMALL.items():
        params[stage] |= values | {"processes": 2, "deepspeed": f"infra/deepspeed/zero{zero}.json", "threads": 1}
        params[stage] |= more if stage != "rl" else {}
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    shutil.copytree(ROOT / "infra/deepspeed", root / "infra/deepspeed")
    write_project(root)
    return root


def run_stage(stage: str, project: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", f"stages.{stage}"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{stage}: {done.stderr[-4000:]}"
    assert not list((project / "data").glob(".*")), "a process left its partial outputs"


def curve(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    return rows


def check_model(folder: Path) -> int:
    """The number of its parameters, all of them there and finite."""
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    assert model.get_input_embeddings().weight.shape[0] >= len(tokenizer)
    assert all(parameter.isfinite().all() and parameter.numel() for parameter in model.parameters())
    return model.num_parameters()


# One test a ZeRO stage, because each stage of ours takes the model of the one before.
def test_zero_2(tmp_path):
    project = make_project(tmp_path, zero=2)
    for stage in ("midtrain", "sft", "rl"):
        run_stage(stage, project)
        assert check_model(project / "data" / stage / "model") == read_json(project / "data/midtrain/metrics.json")["parameters"] > 0
        rows = curve(project / "data" / stage / ("steps.csv" if stage == "rl" else "loss.csv"))
        assert [row["step"] for row in rows] == list(range(1, SMALL[stage]["steps"] + 1))
    before, after = (load_model(project / f"data/{stage}/model").get_input_embeddings().weight for stage in ("sft", "rl"))
    assert 1e-6 < (before - after).abs().max().item() < 1e-2, "two steps of Adam at 1e-4"
    # The sampler is float32; under autocast the trainer must differ a little, and not much.
    assert all(1e-5 < row["logprob_gap"] < 0.5 for row in rows)


def test_zero_3(tmp_path):
    """Every weight is shared out between the processes, small ones too, and must be whole again in the saved model."""
    more = {"steps": 2, "precision": "bfloat16", "gradient_checkpointing": True, "optimizer": "adamw"}
    project = make_project(tmp_path, zero=3, **more)
    path = project / "infra/deepspeed/zero3.json"
    config = json.loads(path.read_text())
    config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    path.write_text(json.dumps(config))
    for stage in ("midtrain", "sft"):
        run_stage(stage, project)
        assert check_model(project / "data" / stage / "model") == read_json(project / "data/midtrain/metrics.json")["parameters"] > 0
        curve(project / "data" / stage / "loss.csv")
