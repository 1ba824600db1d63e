"""A stage on two nodes: real processes on the loopback interface, torchrun, gloo and DeepSpeed ZeRO-2; a model of 800 weights."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from stages.shared.core.errors import StageError
from stages.shared.core.launch import Node, TrainingSection, needs_torchrun, this_node
from stages.shared.core.params import ComputeSection
from tests.support import forked_processes
from tests.support.ports import free_port

ROOT = Path(__file__).parents[4]
NAMES = ("GR2_NODES", "GR2_NODE_RANK", "GR2_MASTER_ADDR", "GR2_MASTER_PORT", "LOCAL_RANK", "RANK", "WORLD_SIZE")

TRAINING = {"deepspeed": "infra/deepspeed/zero2.json"}
# This test's own stage, next to the real `stages.shared`.
PACKAGE = "from pkgutil import extend_path\n__path__ = extend_path(__path__, __name__)\n"
STAGE = """\
from pydantic import BaseModel

from stages.shared.core.launch import rank, world_size
from stages.shared.core.run import run_process
from stages.shared.training.params import OptimizerSection


class TinyParams(OptimizerSection):
    steps: int = 3
    batch_size: int = 2
    lr: float = 0.01
    warmup: float = 0.0
    log_every: int = 1


class TinyMetrics(BaseModel):
    world_size: int
    rank: int


def load():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from stages.shared.lm.encoding import WeightedExample
    from stages.shared.training.trainer import train_supervised, write_curve

    def tiny(params, outputs):
        torch.manual_seed(params.seed)
        config = LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
        model = LlamaForCausalLM(config)
        ids = torch.randint(16, (32, 6), generator=torch.Generator().manual_seed(3)).tolist()
        rows = train_supervised(model, [WeightedExample(row, [1.0] * 6) for row in ids], params, 0)
        print(f"rank {rank()} of {world_size()}", flush=True)
        model.save_pretrained(outputs.path("model"))
        write_curve(rows, outputs.path("loss.csv"))
        outputs.metrics({"world_size": world_size(), "rank": rank()}, TinyMetrics)

    return tiny


run_process("tiny", TinyParams, load)
"""
FAILS = """\
from stages.shared.core.errors import StageError
from stages.shared.core.launch import TrainingSection
from stages.shared.core.run import run_process


def fails(params, outputs):
    raise StageError("data/x.parquet: no such file")


run_process("tiny", TrainingSection, lambda: fails)
"""


@pytest.fixture
def alone(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def make_checkout(root: Path, code: str = STAGE, **values: Any) -> Path:
    (root / "stages/tiny").mkdir(parents=True)
    (root / "stages/__init__.py").write_text(PACKAGE)
    (root / "stages/tiny/__init__.py").touch()
    (root / "stages/tiny/__main__.py").write_text(code)
    shutil.copytree(ROOT / "infra/deepspeed", root / "infra/deepspeed")
    (root / "params.yaml").write_text(yaml.safe_dump({"tiny": {"threads": 1, **values}}))
    return root


def start(checkout: Path, **more: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    environment |= {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **more}
    command = [sys.executable, "-m", "stages.tiny"]
    return subprocess.Popen(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=3000)
    assert process.returncode == 0, errors[-4000:]
    return output


def node(rank: int, port: int, **more: str) -> dict[str, str]:
    return {"GR2_NODES": "2", "GR2_NODE_RANK": str(rank), "GR2_MASTER_ADDR": "127.0.0.1", "GR2_MASTER_PORT": str(port)} | more


@pytest.mark.slow
def test_two_nodes_train_the_model_that_two_processes_train(tmp_path):
    one = make_checkout(tmp_path / "one", processes=2, **TRAINING)
    zero, other = (make_checkout(tmp_path / name, nodes=2, **TRAINING) for name in ("node0", "node1"))
    port = free_port()
    processes = [start(checkout, **node(rank, port)) for rank, checkout in enumerate((zero, other))]
    said = [finish(process) for process in processes]
    assert ["rank 0 of 2" in text for text in said] == [True, False] and ["rank 1 of 2" in text for text in said] == [False, True]
    alone = forked_processes.run("runpy", one, 2, function="run_path", arguments=("stages/tiny/__main__.py", None, "__main__"))
    assert alone.returncode == 0, alone.stderr[-4000:]

    weights, wanted = (load_file(folder / "data/tiny/model/model.safetensors") for folder in (zero, one))
    assert weights.keys() == wanted.keys() and all(torch.equal(weights[name], wanted[name]) for name in wanted)
    assert (zero / "data/tiny/loss.csv").read_bytes() == (one / "data/tiny/loss.csv").read_bytes()
    assert json.loads((zero / "data/tiny/metrics.json").read_text()) == {"world_size": 2, "rank": 0}
    assert not any((other / "data").iterdir()), "a node that is not the first published, or left its partial outputs"


@pytest.mark.slow
def test_a_node_that_never_comes_ends_the_other_with_a_message(tmp_path):
    ports = [free_port(), free_port()]  # two stages, of each the other node is missing
    checkouts = [make_checkout(tmp_path / str(rank), FAILS, nodes=2) for rank in (0, 1)]
    processes = [start(checkouts[rank], **node(rank, ports[rank], GR2_RENDEZVOUS_TIMEOUT_S="2")) for rank in (0, 1)]
    for rank, process in enumerate(processes):
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 1
        last = errors.splitlines()[-1]
        assert last.startswith(f"tiny: node {rank}: the 2 nodes did not meet at 127.0.0.1:{ports[rank]} within 2 s"), last
        assert not (checkouts[rank] / "data").exists()


@pytest.mark.slow
def test_a_stage_that_fails_after_the_nodes_met_says_its_own_reason(tmp_path):
    port = free_port()
    processes = [start(make_checkout(tmp_path / str(rank), FAILS, nodes=2), **node(rank, port)) for rank in (0, 1)]
    for process in processes:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 1 and "tiny: data/x.parquet: no such file" in errors and "did not meet" not in errors


@pytest.mark.parametrize(
    ("params", "environment", "words"),
    [
        (TrainingSection(nodes=2), {}, ["say 2 nodes", "started on 1", "gr2 run --placement NAME", "GR2_MASTER_ADDR"]),
        (TrainingSection(nodes=2), {"GR2_NODES": "3"}, ["say 2 nodes", "started on 3"]),
        (TrainingSection(processes=4), node(0, 29500), ["say 1 node,", "started on 2"]),
        (ComputeSection(), node(0, 29500), ["say 1 node,", "started on 2", "does not train in parallel"]),
        (TrainingSection(nodes=2), node(2, 29500), ["GR2_NODE_RANK=2", "0 to 1"]),
        (TrainingSection(nodes=2), node(-1, 29500), ["GR2_NODE_RANK=-1"]),
        (TrainingSection(nodes=2), node(0, 29500, GR2_MASTER_ADDR=""), ["GR2_MASTER_ADDR is not set", "node 0"]),
        (TrainingSection(nodes=2), node(0, 29500, GR2_NODE_RANK=""), ["GR2_NODES=2, but GR2_NODE_RANK is not set"]),
        (TrainingSection(nodes=2), node(0, 29500, GR2_MASTER_PORT="http"), ["GR2_MASTER_PORT='http' is not a whole number"]),
        (TrainingSection(), {"GR2_NODES": "two"}, ["GR2_NODES='two' is not a whole number"]),
    ],
)
def test_parameters_and_environment_that_disagree(alone, monkeypatch, params, environment, words):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StageError) as caught:
        this_node(params)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_parameters_and_environment_that_agree(alone, monkeypatch):
    assert this_node(TrainingSection()).count == 1 and this_node(ComputeSection()).count == 1
    for name, value in node(1, 29500).items():
        monkeypatch.setenv(name, value)
    params = TrainingSection(nodes=2, processes=4)
    assert this_node(params) == Node(2, 1, "127.0.0.1", 29500)
    assert params.all_processes == 8 and needs_torchrun(params)
    assert needs_torchrun(TrainingSection(nodes=2)), "one process a node is still several"
