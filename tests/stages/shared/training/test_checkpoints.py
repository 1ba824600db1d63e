"""A training that was stopped goes on from its checkpoint, to the same bits."""

import shutil

import pytest
import torch

from stages.shared.training import trainer
from stages.shared.training.checkpoints import COMPLETE, newest_checkpoint, training_resume
from stages.shared.training.params import OptimizerSection
from stages.shared.training.row_rates import RowRates
from stages.shared.training.trainer import train_supervised
from tests.support.tiny_models import tiny_model
from tests.support.training_run import PAD, SMALL, VOCABULARY, run, start, trained, uneven_rows

ADAPTERS = {"lora": {"rank": 2, "targets": ["q_proj"], "dropout": 0.3}}
CASES = {
    "adamw": {"accumulate": 2},
    "muon": {"optimizer": "muon"},
    "lora": ADAPTERS,
    "bfloat16": {"precision": "bfloat16", "loss_chunk": 8},
}


def params(**more) -> OptimizerSection:
    return OptimizerSection(**{**SMALL, "steps": 6, "log_every": 2, "save_steps": 2, **more})


class Stopped(Exception):
    pass


def stop_at(monkeypatch, step: int) -> None:
    class Stop(trainer.KeepNewest):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == step:
                raise Stopped

    monkeypatch.setattr(trainer, "KeepNewest", Stop)


@pytest.mark.parametrize("more", CASES.values(), ids=CASES)
def test_weights_and_curve_are_those_of_an_undisturbed_run(tmp_path, monkeypatch, more):
    rows = 6 * params(**more).accumulate
    undisturbed = trained(params(**more), rows, tmp_path / "undisturbed")
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        stop_at(patched, 5)
        trained(params(**more), rows, tmp_path / "stopped")
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == ["checkpoint-4"]
    # What a kill in the midst of a save leaves.
    shutil.copytree(tmp_path / "stopped/checkpoint-4", tmp_path / "stopped/checkpoint-6")
    (tmp_path / "stopped/checkpoint-6" / COMPLETE).unlink()
    resumed = trained(params(**more), rows, tmp_path / "stopped")
    assert resumed[1] == undisturbed[1] and [row["step"] for row in resumed[1]] == [1, 2, 4, 6]
    assert all(torch.equal(undisturbed[0][name], resumed[0][name]) for name in resumed[0])
    # And a run that failed after its last step trains no more.
    with monkeypatch.context() as patched:
        stop_at(patched, 6)
        again = trained(params(**more), rows, tmp_path / "stopped")
    assert again[1] == undisturbed[1] and all(torch.equal(undisturbed[0][name], again[0][name]) for name in again[0])


def test_rows_at_a_rate_of_their_own_go_on(tmp_path, monkeypatch):
    """The rates hang on the optimizer's step, and hold nothing that a checkpoint would have to keep."""

    def learnt(folder):
        model = tiny_model(VOCABULARY)
        rates = RowRates(model, [3, 9, 20], ratio=0.1)
        try:
            curve = train_supervised(model, uneven_rows(6), params(), PAD, checkpoints=folder)
        finally:
            rates.stop()
        return model.state_dict(), curve

    undisturbed = learnt(tmp_path / "undisturbed")
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        stop_at(patched, 5)
        learnt(tmp_path / "stopped")
    resumed = learnt(tmp_path / "stopped")
    assert resumed[1] == undisturbed[1] and all(torch.equal(undisturbed[0][name], resumed[0][name]) for name in resumed[0])
    plain = trained(params(), 6)[0]
    assert not torch.equal(plain["model.embed_tokens.weight"], resumed[0]["model.embed_tokens.weight"])


def test_saving_changes_nothing(tmp_path):
    with_checkpoints, without = (trained(params(save_steps=steps), 6, tmp_path / str(steps)) for steps in (2, 0))
    assert with_checkpoints[1] == without[1] and not (tmp_path / "0").exists()
    assert all(torch.equal(with_checkpoints[0][name], without[0][name]) for name in without[0])


@pytest.mark.slow
def test_two_processes_that_were_killed(tmp_path):
    options = {"steps": 4, "log_every": 2, "save_steps": 2, "optimizer": "muon"}
    weights, curve = run(tmp_path / "undisturbed", 2, 8, **options)
    assert start(tmp_path / "killed", 2, 8, kill_at=3, **options).returncode != 0
    assert [path.name for path in (tmp_path / "killed/checkpoints").iterdir()] == ["checkpoint-2"]
    again, second = run(tmp_path / "killed", 2, 8, **options)
    assert second == curve and all(torch.equal(weights[name], again[name]) for name in weights)


def test_the_key_is_of_all_that_decides(tmp_path):
    rows = uneven_rows(3)
    (tmp_path / "model.safetensors").write_bytes(b"1")
    key = training_resume("sft", params(), rows, tmp_path).folder
    assert training_resume("sft", params(save_steps=4), rows, tmp_path).folder == key, "how often it is saved decides nothing"
    others = [
        training_resume("sft", params(lr=0.5), rows, tmp_path).folder,
        training_resume("sft", params(), rows[::-1], tmp_path).folder,
        training_resume("sft", params(), rows, None).folder,
    ]
    (tmp_path / "model.safetensors").write_bytes(b"2")
    others.append(training_resume("sft", params(), rows, tmp_path).folder)
    assert len({key, *others}) == 5


def test_incomplete_checkpoints_go(tmp_path):
    for step in (8, 10, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (8, 10):
        (tmp_path / f"checkpoint-{step}" / COMPLETE).touch()
    assert newest_checkpoint(tmp_path, is_first_on_node=True) == str(tmp_path / "checkpoint-10")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-8"]
    assert newest_checkpoint(tmp_path / "none", is_first_on_node=True) is None


def test_checkpoints_between_two_rows_of_the_curve_are_refused():
    with pytest.raises(ValueError, match="save_steps: 3 is no multiple of log_every: 2"):
        params(save_steps=3)
