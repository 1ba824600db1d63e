"""A training under DeepSpeed that was killed goes on from its checkpoint, with the losses and the weights of one that was not."""

import json
from pathlib import Path

import pytest
import torch

from tests.support.training_run import ROOT, run, start

pytestmark = pytest.mark.slow

CASES = {
    "zero2": (2, {}),
    "zero3": (3, {"loss_chunk": 8, "loss_mean": "step"}),
    "zero3_adapters_and_validation": (3, {"lora": {"rank": 2, "targets": ["q_proj"]}, "validate_steps": 2, "held_out": 3, "ranked": 3}),
}


def configuration(folder: Path, zero: int) -> str:
    """The project's own, under which small weights, too, are shared out."""
    config = json.loads((ROOT / f"infra/deepspeed/zero{zero}.json").read_text())
    if zero == 3:
        config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    path = folder / f"zero{zero}.json"
    path.write_text(json.dumps(config))
    return str(path)


@pytest.mark.parametrize(("zero", "more"), CASES.values(), ids=CASES)
def test_a_killed_run_goes_on(tmp_path, zero, more):
    options = {
        "steps": 4,
        "log_every": 2,
        "save_steps": 2,
        "schedule": "cosine",
        "warmup": 0.5,
        "deepspeed": configuration(tmp_path, zero),
        **more,
    }
    weights, curve = run(tmp_path / "undisturbed", 2, 8, **options)
    assert start(tmp_path / "killed", 2, 8, kill_at=3, **options).returncode != 0
    assert [path.name for path in (tmp_path / "killed/checkpoints").glob("checkpoint-*")] == ["checkpoint-2"]
    again, second = run(tmp_path / "killed", 2, 8, **options)
    assert second == curve and len({row["lr"] for row in curve}) > 1
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_zero_3_answers_as_whole_weights_do_and_goes_on_training(tmp_path):
    """Three prompts in two processes, of which one writes twice as long as the other; steps follow."""
    options = {"steps": 4, "validate_steps": 2, "loss_mean": "step", "held_out": 3, "ranked": 3}
    _, shared_out = run(tmp_path / "zero3", 2, 8, **options, deepspeed=configuration(tmp_path, 3))
    _, whole = run(tmp_path / "whole", 2, 8, **options)
    for mine, plain in zip(shared_out, whole, strict=True):
        # DeepSpeed has moved the rate to that of the next step by the time it is logged.
        assert mine == {name: pytest.approx(value, rel=1e-3) for name, value in plain.items()} | {"lr": mine["lr"]}
    assert shared_out[1]["validation_valid"] == 1.0 and "validation_ndcg@5" in shared_out[3]
