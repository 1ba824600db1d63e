"""Runs of the stage with validation, the probe and kept rollouts on; and runs that end badly."""

import errno
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import stages.rl.checkpoints as checkpoints
from stages.rl.params import RlParams, WatchSection
from stages.rl.policy import Policy
from stages.rl.rl import rl
from stages.rl.watch.seen import UNCHANGED
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json, stage_outputs
from stages.shared.core.run import disk_is_full
from stages.shared.generation.base import Completion
from stages.shared.generation.transformers_engine import TransformersEngine
from stages.shared.lm.models import load_model
from tests.stages.rl.test_stage import contents, killed_after
from tests.support.small_project import write_project
from tests.support.tiny_models import tiny_folder

# Constrained answers of a model that knows nothing are valid, and any order: rewards vary.
WATCHED = RlParams(
    threads=1,
    steps=4,
    prompts=2,
    group=3,
    micro_prompts=1,
    max_tokens=96,
    max_refills=1,
    batch_size=6,
    constrained=True,
    consistent=False,
    lr=1e-3,
    validate_steps=2,
    validate_slates=6,
    keep_rollouts=1.0,
    watch=WatchSection(probe_steps=2, probe_slates=2, probe_orders=2),
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # At once: think blocks would only cost time here.
    (tmp_path / "params.yaml").write_text("prompt: {reasoning: false}\n")
    write_project(tmp_path)
    tiny_folder(tmp_path / "data/sft/model")
    return tmp_path


def run(project: Path, **more) -> dict[str, bytes]:
    with stage_outputs("rl") as outputs:
        rl(WATCHED.model_copy(update=more), outputs)
    return contents(project / "data/rl")


def curve(project: Path) -> pl.DataFrame:
    return pl.read_csv(project / "data/rl/steps.csv", infer_schema_length=None)


def test_the_best_step_is_the_output_and_all_is_on_record(project):
    whole = run(project)
    metrics, steps = read_json(project / "data/rl/metrics.json"), curve(project)
    measured = dict(steps.select("step", "validation_reward").drop_nulls().iter_rows())
    assert list(measured) == [2, 4] and metrics["validation"]["slates"] == 6 and metrics["slates"] == 174
    best = max(measured, key=lambda step: (measured[step], -step))
    assert metrics["validation"]["best_step"] == best
    assert metrics["validation"]["best"] == pytest.approx(measured[best], abs=1e-5)
    assert metrics["validation"]["start"] != measured[2], "something was learnt"
    assert steps.filter(pl.col("probe_place").is_not_null())["step"].to_list() == [1, 3]
    assert not (project / ".gr2/resume/rl/none").exists(), "nothing is left beside the outputs"

    rows = pl.read_parquet(project / "data/rl/rollouts.parquet")
    for step, mean in steps.select("step", "reward").iter_rows():
        own = rows.filter(pl.col("step") == step)
        assert own["reward"].mean() == pytest.approx(mean, abs=1e-4)
        assert own.filter("learnt").height == steps.filter(pl.col("step") == step)["kept"].item() * WATCHED.group
    for _, group in rows.filter("learnt").group_by("step", "group"):
        rewards = group["reward"].to_numpy()
        expected = (rewards - rewards.mean()) / rewards.std(ddof=1)
        assert group["advantage"].to_numpy() == pytest.approx(expected, abs=1e-2)
    assert rows.filter(~pl.col("learnt"))["advantage"].null_count() == rows.filter(~pl.col("learnt")).height
    # The parts, put together by the equation of the conditional reward.
    for row in rows.iter_rows(named=True):
        parts = {part["name"]: part["value"] for part in row["parts"]}
        rises = row["new_rank"] < row["target_rank"] or row["target_rank"] == 0
        assert row["reward"] == pytest.approx(parts["rank"] + WATCHED.alpha * rises)
        assert parts["rank"] == pytest.approx((row["target_rank"] - row["new_rank"]) / len(row["shown"]))
    moved = rows.group_by("step", pl.col("target_rank").alias("before"), pl.col("new_rank").alias("after")).len("answers")
    assert moved.sort("step", "before", "after").rows() == pl.read_csv(project / "data/rl/promotions.csv").rows()

    # The weights are those of a run that ends there, with the same slates to learn from.
    kept = {name: whole[name] for name in whole if name.startswith("model/")}
    assert {name: own for name, own in run(project, steps=best, validate_steps=best).items() if name.startswith("model/")} == kept


def test_where_no_step_is_worth_more_the_start_is_the_output(project, capfd):
    start = load_model(project / "data/sft/model").state_dict()
    run(project, lr=1.0, steps=2)  # breaks any policy
    validation = read_json(project / "data/rl/metrics.json")["validation"]
    assert validation["best_step"] == 0 and validation["best"] == validation["start"] > validation["last"]
    kept = load_model(project / "data/rl/model").state_dict()
    assert start.keys() == kept.keys() and all(torch.equal(start[name], kept[name]) for name in start)
    assert UNCHANGED in capfd.readouterr().err


def test_a_share_of_the_groups_is_a_part_of_all(project):
    everything = run(project, validate_steps=0, watch=WatchSection())
    table = pl.read_parquet(project / "data/rl/rollouts.parquet")
    part = run(project, validate_steps=0, watch=WatchSection(), keep_rollouts=0.4)
    kept = pl.read_parquet(project / "data/rl/rollouts.parquet")
    assert 0 < kept.height < table.height and kept.height % WATCHED.group == 0
    assert kept.join(table, on=["step", "process", "group", "sample"], how="semi").height == kept.height
    nothing = run(project, validate_steps=0, watch=WatchSection(), keep_rollouts=0.0)
    assert pl.read_parquet(project / "data/rl/rollouts.parquet").is_empty()
    for name in (name for name in everything if name != "rollouts.parquet"):
        assert everything[name] == part[name] == nothing[name], f"{name}: to keep rollouts changes nothing else"


def test_a_run_that_stopped_goes_on_to_the_same_bytes(project, monkeypatch):
    """The best weights before it, the rows of the probe and the rollouts all go on."""
    options = {"steps": 6, "keep_surplus": True, "seed": 9}  # the best is neither the start nor the last, by far
    whole = run(project, **options)
    assert read_json(project / "data/rl/metrics.json")["validation"]["best_step"] in (2, 4), "else nothing is shown about the best weights"
    for steps in (3, 2):
        with killed_after(steps, monkeypatch):
            run(project, **options, save_steps=3)
    assert run(project, **options, save_steps=3) == whole
    assert not (project / ".gr2/resume/rl").exists()


def complete(project: Path) -> list[str]:
    return sorted(path.parent.name for path in (project / ".gr2/resume/rl").glob("*/checkpoint-*/complete"))


def test_a_gradient_that_is_no_number_ends_the_run_and_spoils_nothing(project, monkeypatch):
    before, real = run(project), Policy.step
    calls = []

    def spoilt(self):
        calls.append(1)
        if len(calls) == 3:
            next(self.module.parameters()).grad[0] = float("nan")
        return real(self)

    monkeypatch.setattr(Policy, "step", spoilt)
    with pytest.raises(StageError, match=r"the gradient's norm is nan; lower rl.lr, .*last checkpoint \(rl.save_steps\) are intact"):
        run(project, save_steps=1)
    saved = torch.load(next((project / ".gr2/resume/rl").glob("*/checkpoint-2/policy.pt")), weights_only=True)
    assert complete(project) == ["checkpoint-2"] and all(weight.isfinite().all() for weight in saved["weights"].values())
    monkeypatch.setattr(Policy, "step", real)
    assert run(project, save_steps=1) == before


@pytest.mark.parametrize("at", ["checkpoint", "best", "rollouts"])
def test_a_full_disk_leaves_the_last_checkpoint(project, monkeypatch, at):
    before = run(project, seed=8)  # step 2 is worth more than the start
    full = OSError(errno.ENOSPC, "No space left on device")
    real_write, real_table = checkpoints.write, pl.DataFrame.write_parquet

    def write(content, path):
        if ("checkpoint-3" if at == "checkpoint" else "best-2") in str(path) and at != "rollouts":
            path.write_bytes(b"the beginning of it")
            raise full
        real_write(content, path)

    def write_parquet(table, path, **more):
        if at == "rollouts" and "rollouts-000003" in str(path):
            raise full
        real_table(table, path, **more)

    monkeypatch.setattr(checkpoints, "write", write)
    monkeypatch.setattr("stages.rl.watch.validation.write", write)
    monkeypatch.setattr(pl.DataFrame, "write_parquet", write_parquet)
    with pytest.raises(OSError, match="No space left") as caught:
        run(project, seed=8, save_steps=1)
    assert disk_is_full(caught.value)
    assert complete(project) == ["checkpoint-1" if at == "best" else "checkpoint-2"]
    assert len(list((project / ".gr2/resume/rl").glob("*/checkpoint-*"))) == 1, "what is not whole is gone, and with it its space"
    monkeypatch.undo()
    monkeypatch.chdir(project)
    assert run(project, seed=8, save_steps=1) == before


def test_torch_says_plainly_that_a_disk_is_full():
    with pytest.raises(Exception) as caught:
        checkpoints.write({"weights": torch.zeros(100_000)}, Path("/dev/full"))
    assert disk_is_full(caught.value)


def test_answers_that_are_all_invalid_end_the_run_and_the_checkpoint_stays(project):
    before = run(project)
    with pytest.raises(StageError, match=r"100% of the answers were invalid, most of them unfinished: train sft longer"):
        run(project, constrained=False, max_tokens=16, save_steps=1, validate_steps=0)
    assert complete(project) == ["checkpoint-4"]
    assert (project / "data/rl/steps.csv").read_bytes() == before["steps.csv"]


@pytest.mark.parametrize("form", ["cache", "tree", "none"])
def test_answers_without_a_token_teach_nothing(project, monkeypatch, form):
    """An engine that fails at single prompts gives no tokens: a whole group of them is left out, one in a group is no obstacle."""
    real = TransformersEngine.generate

    def generate(self, *arguments, **more):
        groups = real(self, *arguments, **more)
        nothing = Completion([], [], fault="timeout")
        return [[nothing] * 3, [nothing, *groups[1][1:]]]

    monkeypatch.setattr(TransformersEngine, "generate", generate)
    options = {"steps": 1, "max_refills": 0, "validate_steps": 0, "watch": WatchSection(), "shared_prefix": form, "reward": "random"}
    run(project, **options)
    [row] = curve(project).iter_rows(named=True)
    assert row["kept"] == 1 and np.isfinite(row["loss"])
    rows = pl.read_parquet(project / "data/rl/rollouts.parquet")
    assert rows["learnt"].to_list() == [True] * 3 + [False] * 3 and rows["tokens"].to_list()[0] == 0
