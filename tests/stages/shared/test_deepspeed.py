"""The three stages that train a language model, each in two gloo processes under DeepSpeed ZeRO-2."""

import csv
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stages.shared.models import load_model, load_tokenizer
from stages.shared.outputs import read_json
from tasks.profiles import render
from tests.stages.midtrain.small_project import write_project

ROOT = Path(__file__).parents[3]
SMALL = {
    "midtrain": {"steps": 4, "batch_size": 2, "accumulate": 2, "log_every": 1},
    "sft": {"steps": 4, "batch_size": 2, "log_every": 1},
    "rl": {"steps": 2, "prompts": 3, "micro_prompts": 2, "group": 4, "max_tokens": 32, "precision": "bfloat16"},
}

pytestmark = pytest.mark.slow


def run_stage(stage: str, project: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, "-m", f"stages.{stage}"], cwd=project, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def rows(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The smoke profile's model with fewer steps, under the project's own DeepSpeed configuration, its paths relative to the project."""
    root = tmp_path_factory.mktemp("deepspeed")
    params = yaml.safe_load(render(ROOT, "smoke"))
    for stage, values in SMALL.items():
        params[stage] |= values | {"processes": 2, "deepspeed": "infra/deepspeed/zero2.json", "threads": 1}
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    shutil.copytree(ROOT / "infra/deepspeed", root / "infra/deepspeed")
    write_project(root)
    return root


def check_model(folder: Path) -> None:
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    assert model.get_input_embeddings().weight.shape[0] >= len(tokenizer)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


# One test, because each stage takes the model of the one before.
def test_midtrain_sft_and_rl_learn_in_two_processes(project):
    for stage in ("midtrain", "sft", "rl"):
        done = run_stage(stage, project)
        assert done.returncode == 0, f"{stage}: {done.stderr[-4000:]}"
        folder = project / "data" / stage
        check_model(folder / "model")
        read_json(folder / "metrics.json")
        curve = rows(folder / ("steps.csv" if stage == "rl" else "loss.csv"))
        assert [row["step"] for row in curve] == list(range(1, SMALL[stage]["steps"] + 1))
        assert all(math.isfinite(value) for row in curve for value in row.values())
        assert not list((project / "data").glob(".*")), "a process left its partial outputs"
    check_model(project / "data/sft/no_reasoning")
    before, after = (load_model(project / f"data/{stage}/model").get_input_embeddings().weight for stage in ("sft", "rl"))
    assert 1e-6 < (before - after).abs().max() < 1e-2  # lr 1e-4, two steps of Adam
    # The sampler is float32; under autocast the trainer must differ a little, and not much.
    assert all(1e-5 < row["logprob_gap"] < 0.5 for row in rows(project / "data/rl/steps.csv"))
