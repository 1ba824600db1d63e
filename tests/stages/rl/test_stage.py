"""The stage on a small project, with a model that knows next to nothing."""

import shutil
import signal
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

import stages.rl.rl as stage
from stages.rl.params import RlParams, WatchSection
from stages.rl.rewards.group import Rewarder
from stages.rl.rl import rl
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json, stage_outputs
from stages.shared.lm.models import load_model
from stages.shared.slates.prompt_params import PromptParams
from tests.support import forked_processes
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
    return contents(project / "data/rl")


def contents(folder) -> dict[str, bytes]:
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
        "step,reward,rank_reward,valid,contradicts,identical,kept,refills,length,entropy,loss,grad_norm,clipped"
    )
    assert metrics["first_fifth"]["logprob_gap"] < 1e-4


def test_a_run_that_never_had_variance_fails_and_says_why(project):
    """Every answer is invalid, so every group has one reward."""
    with pytest.raises(StageError, match=r"in 2 steps no slate .* 100% of the answers were invalid, most of them unfinished: train sft"):
        run(project, reward="conditional", max_refills=1)
    assert not (project / "data/rl").exists()


def test_a_step_that_cannot_fill_is_counted(project, monkeypatch):
    """The second of two steps draws rewards that are all tied."""
    draw = Rewarder.__call__
    calls = []

    def tied_from_the_second_step(self, *arguments):
        calls.append(1)
        rewards = draw(self, *arguments)
        return rewards if len(calls) <= 2 else rewards._replace(total=[0.5] * len(rewards.total))

    monkeypatch.setattr(Rewarder, "__call__", tied_from_the_second_step)
    run(project, max_refills=1)
    metrics = read_json(project / "data/rl/metrics.json")
    assert metrics["steps_at_refill_cap"] == 1 and metrics["last_fifth"]["kept"] == 0 and metrics["last_fifth"]["refills"] == 1


def test_limits_warn_or_stop_with_the_reason(project):
    limits = {"patience": 2, "invalid": 0.5, "length": 1.0}
    run(project, steps=3, watch=WatchSection(**limits))
    assert read_json(project / "data/rl/metrics.json")["warnings"] == {"invalid": 2}
    with pytest.raises(StageError, match=r"step 2: 100% of the answers are invalid, for 2 steps in a row \(rl.watch.invalid\)"):
        run(project, steps=3, watch=WatchSection(**limits, action="stop"))


class Killed(Exception):
    pass


@contextmanager
def killed_after(steps, monkeypatch):
    """While open, the stage has to be killed when it would take another step."""
    real, left = stage.update, [steps]

    def stopping(*arguments, **more):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return real(*arguments, **more)

    monkeypatch.setattr(stage, "update", stopping)
    with pytest.raises(Killed):
        yield
    monkeypatch.setattr(stage, "update", real)


def test_a_run_that_stopped_anywhere_goes_on_to_the_same_bytes(project, monkeypatch):
    """Surplus groups, the random reward's generator, Adam's moments and the place in the data all go on."""
    options = {"steps": 5, "prompts": 2, "max_refills": 2, "keep_surplus": True, "updates": 2, "lr": 1e-3}
    monkeypatch.setattr(Rewarder, "__call__", tied_at_times(Rewarder.__call__))
    whole = run(project, **options)
    assert any(row.split(",")[7] != "0" for row in whole["steps.csv"].decode().splitlines()[1:]), "no step was ever refilled"
    for stops in ((1,), (3, 1), (4,)):
        for steps in stops:
            with killed_after(steps, monkeypatch):
                run(project, **options, save_steps=1)
        assert len(list((project / ".gr2/resume/rl").glob("*/checkpoint-*"))) == 1
        assert run(project, **options, save_steps=1) == whole
        assert not (project / ".gr2/resume/rl").exists()


def tied_at_times(draw):
    """About half of the groups are tied, by what their first answer says, so that steps need refills and leave a surplus."""

    def drawn(self, constraint, target_rank, completions, answers, logprobs, grades):
        rewards = draw(self, constraint, target_rank, completions, answers, logprobs, grades)
        return rewards if sum(completions[0]) % 2 else rewards._replace(total=[0.5] * len(answers))

    return drawn


def test_another_run_does_not_take_what_was_saved(project, monkeypatch):
    whole = run(project, steps=2, lr=1e-3)
    with killed_after(1, monkeypatch):
        run(project, steps=2, save_steps=1)
    assert run(project, steps=2, lr=1e-3, save_steps=1) == whole


def test_killed_at_random_it_ends_with_the_same_bytes(project):
    """kill -9 of the stage's own process, twice, wherever it is by then."""
    names = {"threads", "prompts", "group", "micro_prompts", "max_tokens", "max_refills", "batch_size", "reward"}
    lines = [f"  {name}: {value}" for name, value in SMALL.model_dump(include=names).items()]
    text = "\n".join(["prompt: {}", "rl:", *lines, "  steps: 6", "  save_steps: 0", ""])
    (project / "params.yaml").write_text(text)
    assert forked_processes.run_stage("rl", project, 1).returncode == 0
    whole = contents(project / "data/rl")
    shutil.rmtree(project / "data/rl")
    (project / "params.yaml").write_text(text.replace("save_steps: 0", "save_steps: 1"))
    for checkpoint in (1, 4):
        process = forked_processes.start_stage("rl", project)
        while process.is_alive() and newest(project) < checkpoint:
            time.sleep(0.02)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL and not (project / "data/rl/model").exists()
    assert newest(project) >= 4
    assert forked_processes.run_stage("rl", project, 1).returncode == 0
    assert contents(project / "data/rl") == whole


def newest(project) -> int:
    return max((int(path.name[11:]) for path in (project / ".gr2/resume/rl").glob("*/checkpoint-*")), default=0)


CHANGES = [{"seed": 1}, {"steps": 1}, {"prompts": 3}, {"group": 2}, {"updates": 2}, {"lr": 1e-3}, {"temperature": 0.5}, {"max_tokens": 17}]
CHANGES += [{"updates": 4, "lr": 2e-3, "clip_low": 0.01}, {"updates": 4, "lr": 2e-3, "clip_high": 0.01}, {"precision": "bfloat16"}]
CHANGES += [{"objective": "dr_grpo"}, {"kl": 0.1}, {"importance_cap": 0.5}, {"constrained": True}]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: list(change)[-1])
def test_parameters_change_the_model(project, change, bfloat16_kernels):
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
