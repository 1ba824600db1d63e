import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from stages.shared.core import launch
from stages.shared.core.launch import (
    TrainingSection,
    accelerator_of_deepspeed,
    is_main_process,
    needs_torchrun,
    rank,
    torchrun,
    world_size,
)
from stages.shared.core.params import ComputeSection


@pytest.fixture
def alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def test_one_plain_process_starts_no_other(alone):
    assert not needs_torchrun(TrainingSection()) and not needs_torchrun(ComputeSection())
    assert (rank(), world_size(), is_main_process()) == (0, 1, True)


@pytest.mark.parametrize("values", [{"processes": 2}, {"deepspeed": "infra/deepspeed/zero2.json"}])
def test_several_processes_or_deepspeed_start_torchrun_once(alone, monkeypatch, values):
    assert needs_torchrun(TrainingSection(**values))
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not needs_torchrun(TrainingSection(**values))


def test_ranks_are_those_of_torchrun(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (rank(), world_size(), is_main_process()) == (3, 4, False)


def test_the_command_and_its_exit_code(alone, monkeypatch):
    calls = []
    monkeypatch.setattr(subprocess, "run", lambda command, **more: calls.append((command, more)) or SimpleNamespace(returncode=3))
    assert torchrun("sft", TrainingSection(processes=2, threads=5)) == 3
    command, more = calls[0]
    assert command[0] == sys.executable and command[-2:] == ["-m", "stages.sft"] and "--nproc-per-node=2" in command
    assert more["env"]["OMP_NUM_THREADS"] == "5"


@pytest.mark.parametrize(("gpu", "deepspeed", "accelerator"), [(False, "zero2.json", "cpu"), (True, "zero2.json", None), (False, "", None)])
def test_deepspeed_is_told_of_a_machine_without_gpu(monkeypatch, gpu, deepspeed, accelerator):
    monkeypatch.setenv("DS_ACCELERATOR", "")  # so that it is put back as it was
    monkeypatch.delenv("DS_ACCELERATOR")
    monkeypatch.setattr(launch, "_has_gpu", lambda: gpu)
    accelerator_of_deepspeed(TrainingSection(deepspeed=deepspeed))
    assert os.environ.get("DS_ACCELERATOR") == accelerator


@pytest.mark.parametrize("values", [{"precision": "float16"}, {"processes": 0}, {"deepspeeed": "x"}])
def test_wrong_values(values):
    with pytest.raises(ValueError):
        TrainingSection(**values)
