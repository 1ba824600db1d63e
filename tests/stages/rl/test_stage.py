"""The stage on a small project, with a model that knows next to nothing."""

from dataclasses import replace

import pytest

from stages.rl.params import RlParams
from stages.rl.rl import rl
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json, stage_outputs
from stages.shared.lm.models import load_model
from stages.shared.slates.prompt_params import PromptParams
from tests.support.small_project import SPLITS, make_slates, make_tables, own_items, write_project
from tests.support.tiny_models import tiny_folder

# No answer of this model is valid, so only a random reward has variance.
SMALL = RlParams(threads=1, steps=2, prompts=2, group=3, micro_prompts=1, max_tokens=16, max_refills=0, batch_size=6, reward="random")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("prompt: {}\n")
    write_project(tmp_path)
    tiny_folder(tmp_path / "data/sft/model")
    return tmp_path


def run(project, **more) -> dict[str, bytes]:
    with stage_outputs("rl") as outputs:
        rl(SMALL.model_copy(update=more), outputs)
    folder = project / "data/rl"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_moves_the_weights_a_little_and_repeats_its_bytes(project):
    first = run(project)
    assert first == run(project)
    before, after = (load_model(project / "data" / stage / "model").get_input_embeddings().weight for stage in ("sft", "rl"))
    assert 0 < (before - after).abs().max().item() < 3e-4, "two steps of Adam at 1e-4"
    metrics = read_json(project / "data/rl/metrics.json")
    assert metrics["slates"] == 180 and metrics["leak_check"]["overlap"] == 0 and metrics["steps_at_refill_cap"] == 0
    curve = first["steps.csv"].decode().splitlines()
    assert len(curve) == 3 and curve[0].startswith(
        "step,reward,rank_reward,valid,contradicts,identical,kept,refills,length,entropy,loss,clipped"
    )
    assert metrics["first_fifth"]["logprob_gap"] < 1e-4


def test_a_step_that_cannot_fill_is_counted_and_changes_nothing(project):
    """Every answer is invalid, so every group has one reward."""
    run(project, reward="conditional", max_refills=1)
    metrics = read_json(project / "data/rl/metrics.json")
    assert metrics["steps_at_refill_cap"] == 2 and metrics["last_fifth"]["kept"] == 0 and metrics["last_fifth"]["refills"] == 1
    assert metrics["last_fifth"]["reward"] == -1.0
    before, after = (load_model(project / "data" / stage / "model").state_dict() for stage in ("sft", "rl"))
    assert all(before[name].equal(after[name]) for name in before)


CHANGES = [{"seed": 1}, {"steps": 1}, {"prompts": 3}, {"group": 2}, {"updates": 2}, {"lr": 1e-3}, {"temperature": 0.5}, {"max_tokens": 17}]
CHANGES += [{"updates": 4, "lr": 2e-3, "clip_low": 0.01}, {"updates": 4, "lr": 2e-3, "clip_high": 0.01}, {"precision": "bfloat16"}]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: list(change)[-1])
def test_parameters_change_the_model(project, change):
    common = {name: value for name, value in list(change.items())[:-1]}
    assert run(project, **common)["model/model.safetensors"] != run(project, **change)["model/model.safetensors"]


@pytest.mark.parametrize("held", ["valid", "test"])
def test_a_held_out_target_is_a_leak(project, held):
    slates = make_slates()
    slates[7].candidates[slates[7].target_rank] = own_items(slates[7].user)[SPLITS.index(held)]
    write_project(project, make_tables(slates, PromptParams()))
    with pytest.raises(StageError, match=rf"leak in rl: 1 held-out .* user {slates[7].user}, .* split {held}"):
        run(project)
    assert not (project / "data/rl").exists()


def test_no_training_slate(project):
    write_project(project, make_tables([replace(slate, split="valid") for slate in make_slates()], PromptParams()))
    with pytest.raises(StageError, match="no training slate"):
        run(project)


def test_slates_of_one_candidate_leave_nothing_to_rank(project):
    slates = [replace(s, candidates=[s.candidates[s.target_rank]], bins=[s.bins[s.target_rank]], target_rank=0) for s in make_slates()]
    write_project(project, make_tables(slates, PromptParams()))
    with pytest.raises(StageError, match="no training slate with more than one candidate"):
        run(project)
