"""Two processes with a transformers model each; what GPUs they get; what is said when one dies."""

import os
from pathlib import Path

import pytest

from stages.shared.core.errors import StageError
from stages.shared.generation import data_parallel, engine_process
from stages.shared.generation.base import Sampling
from stages.shared.generation.choose import on_cpu, open_engine
from stages.shared.generation.data_parallel import DataParallelEngine, shares_of_devices
from stages.shared.generation.params import EngineParams
from tests.stages.shared.slates.test_constraint import constraints
from tests.support.tiny_models import random_prompts, tiny_folder

TWO = EngineParams(data_parallel=2, device="cpu", batch_size=4)
ROOT = Path(__file__).parents[4]


@pytest.mark.slow
def test_two_processes_answer_as_one_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = tiny_folder(tmp_path / "model")
    prompts, rules = random_prompts(5, 300), constraints(5)
    drawn = Sampling(12, temperature=1.0, samples=2, seed=5)
    with open_engine(TWO, folder) as two, open_engine(EngineParams(device="cpu", batch_size=4), folder) as one:
        for arguments in (
            (prompts, Sampling(12)),
            (prompts, drawn),
            (prompts[:1], Sampling(40), rules[:1]),
            (prompts, drawn, None, [9, 8, 7, 6, 5]),
        ):
            ours, theirs = two.generate(*arguments), one.generate(*arguments)
            assert [[c.token_ids for c in samples] for samples in ours] == [[c.token_ids for c in samples] for samples in theirs]
        with pytest.raises(StageError, match="positions of the model"):
            two.generate(prompts, Sampling(4000))


def test_a_process_that_dies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dies.py").write_text("import sys; sys.exit('out of memory on GPU 1')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(engine_process, "MODULE", "dies")
    with pytest.raises(StageError, match=r"ended with code 1: out of memory on GPU 1"):
        DataParallelEngine(TWO, tmp_path, 0, 1)


@pytest.mark.parametrize(
    ("data", "tensor", "visible", "shares"),
    [(2, 1, [], [None, None]), (2, 2, list("0123"), ["0,1", "2,3"]), (2, 1, ["GPU-a", "GPU-b", "GPU-c"], ["GPU-a", "GPU-b"])],
)
def test_every_process_has_gpus_of_its_own(data, tensor, visible, shares, monkeypatch) -> None:
    monkeypatch.setattr(data_parallel, "gpus", lambda: visible)
    assert list(shares_of_devices(EngineParams(kind="vllm", data_parallel=data, tensor_parallel=tensor))) == shares


def test_too_few_gpus_are_an_error(monkeypatch) -> None:
    monkeypatch.setattr(data_parallel, "gpus", lambda: ["0", "1", "2"])
    with pytest.raises(StageError, match="are 4 GPUs, and 3 are visible"):
        list(shares_of_devices(EngineParams(kind="vllm", data_parallel=2, tensor_parallel=2)))
    assert not on_cpu(TWO) and on_cpu(EngineParams(device="cpu")) and os.cpu_count()
