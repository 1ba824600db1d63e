"""What an engine is sent: an ordinary model's weights, adapters merged, read by another process out of memory."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from stages.rl.engines.memory_file import MemoryFile
from stages.rl.engines.whole_weights import weights_of, whole_weights
from stages.shared.lm.models import load_model
from stages.shared.training.lora import add_lora, merge_lora
from stages.shared.training.params import LoraSection
from tests.support.sent_weights import sent
from tests.support.tiny_models import tiny_folder, tiny_model

READ = "import sys; from safetensors.torch import load_file; print(load_file(sys.argv[1])['b'].tolist())"


@pytest.mark.parametrize("tied", [True, False])
def test_adapters_and_token_rows_are_merged_under_the_names_of_the_folder(tmp_path, tied):
    folder = tiny_folder(tmp_path / "model", tied=tied)
    model, stored = load_model(folder), load_file(folder / "model.safetensors")
    lora = add_lora(model, LoraSection(rank=4, targets=["q_proj", "down_proj"]), [3, 9, 33])
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    sent = {name: tensor.clone() for name, tensor in whole_weights(model)}
    assert [weight.name for weight in weights_of(model)] == list(sent)
    assert set(sent) == set(stored)
    merge_lora(lora)
    expected = model.state_dict()
    assert max(float((sent[name] - expected[name]).abs().max()) for name in sent) < 1e-6
    changed = {name for name in sent if not torch.equal(sent[name], stored[name])}
    assert len(changed) == 2 * 2 + (1 if tied else 2), "two targets in two layers, and the embeddings"


def test_without_adapters_the_weights_are_those_of_the_model():
    model = tiny_model(64, tied=False)
    sent = dict(whole_weights(model))
    assert set(sent) == set(model.state_dict()) and all(torch.equal(sent[name], value) for name, value in model.state_dict().items())


def test_another_process_reads_what_was_written_last():
    file = MemoryFile({"a": torch.Size([3]), "b": torch.Size([2, 2])}, "bfloat16")
    for value in (1.0, 2.0):
        file.write("a", torch.full((3,), value))
        file.write("b", torch.tensor([[value, 0.5], [-1.0, 3.0]], dtype=torch.float64))
    assert load_file(file.path)["a"].dtype == torch.bfloat16
    done = subprocess.run([sys.executable, "-c", READ, str(file.path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[[2.0, 0.5], [-1.0, 3.0]]"
    file.close()
    assert not file.path.exists(), "nothing is left of it"


@pytest.mark.slow
def test_shared_out_between_two_processes_they_are_sent_whole(tmp_path):
    """ZeRO-3 and adapters: the engine of each process reads what the model is that is saved."""
    read, saved = sent(tmp_path)
    before = load_file(tmp_path / "model/model.safetensors")
    for weights in read:
        assert set(weights) == set(saved) == set(before)
        assert max(float((weights[name] - saved[name]).abs().max()) for name in saved) < 1e-6
    assert sum(not torch.equal(saved[name], before[name]) for name in saved) == 5, "two targets in two layers, and the embedding"
