"""The three stages that train a language model, each in two gloo processes under DeepSpeed. (With torchrun: test_tiny_qwen3.py.)"""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from stages.shared.core.device import multiplies_in
from stages.shared.core.outputs import read_json
from stages.shared.lm.models import load_model, load_tokenizer, save_model
from tasks.project.profiles import render
from tests.support import forked_processes
from tests.support.chat_models import tiny_qwen3
from tests.support.small_project import write_project
from tests.support.tiny_models import random_prompts, tiny_folder, tiny_tokenizer

ROOT = Path(__file__).parents[4]
LEAST_GAP = 1e-5 if multiplies_in("bfloat16") else -1.0  # of log-probabilities between a sampler in float32 and a trainer under autocast
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
    for folder in ("infra/deepspeed", "infra/text"):
        shutil.copytree(ROOT / folder, root / folder)
    write_project(root)
    return root


def run_stage(stage: str, project: Path, processes: int = 2) -> None:
    done = forked_processes.run_stage(stage, project, processes)
    assert done.returncode == 0, f"{stage}: {done.stderr[-4000:]}"
    assert not list((project / "data").glob(".*")), "a process left its partial outputs"


def curve(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
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
    # The sampler is float32; under autocast, where there is one, the trainer must differ a little, and not much.
    assert all(LEAST_GAP < row["logprob_gap"] < 0.5 for row in rows)


def share_out_everything(project: Path) -> None:
    """Small weights too, which each process would otherwise keep."""
    path = project / "infra/deepspeed/zero3.json"
    config = json.loads(path.read_text())
    config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    path.write_text(json.dumps(config))


def test_zero_3(tmp_path):
    """Every weight is shared out between the processes and must be whole again in the saved model."""
    more = {"steps": 2, "precision": "bfloat16", "gradient_checkpointing": True, "optimizer": "adamw"}
    project = make_project(tmp_path, zero=3, **more)
    share_out_everything(project)
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["rl"] |= {"shared_prefix": "tree", "gradient_checkpointing": True, "logprob_chunk": 50, "lora": {"rank": 4}, "reward": "random"}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    for stage in ("midtrain", "sft", "rl"):
        run_stage(stage, project)
        assert check_model(project / "data" / stage / "model") == read_json(project / "data/midtrain/metrics.json")["parameters"] > 0
        rows = curve(project / "data" / stage / ("steps.csv" if stage == "rl" else "loss.csv"))
    # The sampler is float32, the trainer not; that the tree is what the plain form is was found out before the first step.
    assert (
        all(LEAST_GAP < row["logprob_gap"] < 0.5 for row in rows) and read_json(project / "data/rl/metrics.json")["tree_difference"] < 0.05
    )
    before, after = (load_model(project / f"data/{stage}/model").state_dict() for stage in ("sft", "rl"))
    moved = {name for name in before if (before[name] != after[name]).any()}
    assert moved == {name for name in before if name.endswith("proj.weight") or "embed" in name or "lm_head" in name}, "adapters and rows"


def test_zero_3_with_adapters_learns_as_one_process_does(tmp_path):
    """A given Qwen3: weights shared out while it is read, adapters and rows of SIDs, logits in chunks; the folder is an ordinary one."""
    more = {"steps": 3, "precision": "float32", "gradient_checkpointing": True, "optimizer": "adamw", "lr": 0.01, "loss_chunk": 16}
    more |= {"loss_mean": "step", "lora": {"rank": 4, "targets": ["q_proj", "down_proj"]}, "accumulate": 1, "batch_size": 1}
    project = make_project(tmp_path, zero=3, **more)
    share_out_everything(project)
    save_model(tiny_qwen3(tiny_tokenizer()), tiny_tokenizer(), project / "given")
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["midtrain"] |= {"model": str(project / "given"), "probe_users": 0}
    ids = torch.tensor(random_prompts(2, 300, 20, 20))
    curves, logits = [], []
    for changes in ({}, {"processes": 1, "deepspeed": "", "batch_size": 2}):
        params["midtrain"] |= changes
        (project / "params.yaml").write_text(yaml.safe_dump(params))
        run_stage("midtrain", project, processes=params["midtrain"]["processes"])
        folder = project / "data/midtrain/model"
        assert not list(folder.glob("adapter*")) and check_model(folder)
        curves.append(curve(project / "data/midtrain/loss.csv"))
        with torch.no_grad():
            logits.append(AutoModelForCausalLM.from_pretrained(folder)(input_ids=ids).logits)
    assert [row["loss"] for row in curves[0]] == pytest.approx([row["loss"] for row in curves[1]], rel=1e-4)
    with torch.no_grad():
        first = load_model(project / "given")(input_ids=ids).logits
    moved = (logits[1][..., : first.shape[-1]] - first).abs().max()
    assert (logits[0] - logits[1]).abs().max() < 0.1 * moved


def test_zero_3_validates_by_ranking_what_q_tuning_has_kept(tmp_path):
    """Each process prunes by the whole model and answers its share of the slates; the best step's adapters are merged."""
    more = {"precision": "bfloat16", "optimizer": "adamw", "loss_chunk": 16, "loss_mean": "step", "group_by_length": True}
    more |= {"lora": {"rank": 4, "targets": ["q_proj"]}}
    project = make_project(tmp_path, zero=3, **more)
    share_out_everything(project)
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["sft"] |= {"validate_steps": 2, "validate_slates": 5, "best_by": "ndcg", "prune": "q_tuning", "token_keep": 0.5}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    tiny_folder(project / "data/midtrain/model")
    run_stage("sft", project)
    check_model(project / "data/sft/model")
    metrics = read_json(project / "data/sft/metrics.json")
    ranking, pruning = metrics["validation"]["ranking"], metrics["pruning"]
    assert ranking["slates"] == 5 and ranking["decides"] and 0 < ranking["best"]["ndcg@5"] >= ranking["last"]["ndcg@5"]
    assert 0 < pruning["pruned_tokens"] < pruning["tokens"]
    rows = curve(project / "data/sft/loss.csv")
    assert [row["step"] for row in rows if "validation_ndcg@5" in row] == [2, 4]


def test_zero_3_rl_is_watched_by_all_processes_and_takes_the_best_step(tmp_path):
    """Each process answers its share of probe and validation; the best step's adapters are merged, not the last one's."""
    project = make_project(tmp_path, zero=3)
    share_out_everything(project)
    tiny_folder(project / "data/sft/model")
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["prompt"]["reasoning"] = False
    params["rl"] |= {"shared_prefix": "tree", "precision": "float32", "lora": {"rank": 4, "targets": ["q_proj"]}, "constrained": True}
    params["rl"] |= {"reward": "conditional", "steps": 4, "lr": 1.0, "validate_steps": 1, "validate_slates": 5, "keep_rollouts": 1.0}
    params["rl"]["watch"] |= {"probe_steps": 3, "probe_slates": 3, "probe_orders": 2}
    weights = []
    for _ in range(2):
        (project / "params.yaml").write_text(yaml.safe_dump(params))
        run_stage("rl", project)
        check_model(project / "data/rl/model")
        weights.append(load_model(project / "data/rl/model").state_dict())
        metrics, rows = read_json(project / "data/rl/metrics.json"), curve(project / "data/rl/steps.csv")
        if params["rl"]["steps"] == 4:
            best = metrics["validation"]["best_step"]
            assert max(rows, key=lambda row: (row["validation_reward"], -row["step"]))["step"] == best < 4, "else this shows nothing"
            assert [row["step"] for row in rows if "probe_place" in row] == [1, 4] and all(row["lr"] == 1.0 for row in rows)
            kept = pl.read_parquet(project / "data/rl/rollouts.parquet")
            assert set(kept["process"]) == {0, 1} and set(kept["step"]) == {1, 2, 3, 4}
            moves = pl.read_csv(project / "data/rl/promotions.csv")
            assert moves["answers"].sum() == kept["order"].drop_nulls().len(), "of both processes"
            assert pl.read_csv(project / "data/rl/positions.csv").group_by("step").agg(pl.sum("answers"))["answers"].to_list() == [6, 6]
        params["rl"] |= {"steps": best}
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-5) for name in weights[0]), "those of a run that ends there"


PLACES = """
import sys
from pathlib import Path
from stages.shared.lm.models import load_model
from stages.shared.training.params import OptimizerSection
from stages.shared.training.zero import shared_out
params = OptimizerSection(deepspeed="infra/deepspeed/zero3.json", processes=2)
with shared_out(params):
    model = load_model(Path("given"))
assert all(parameter.ds_numel > parameter.numel() for parameter in model.parameters() if parameter.ds_numel > 1e3)
"""


def test_zero_3_never_reads_a_whole_model_into_a_process(tmp_path):
    project = make_project(tmp_path, zero=3)
    share_out_everything(project)
    save_model(tiny_qwen3(tiny_tokenizer()), tiny_tokenizer(), project / "given")
    (project / "places.py").write_text(PLACES)
    done = forked_processes.run("runpy", project, 2, function="run_path", arguments=("places.py",))
    assert done.returncode == 0, done.stderr[-4000:]
