import copy

import pytest
import torch
from torch.optim import _muon
from transformers import get_cosine_schedule_with_warmup

from stages.shared.core import device
from stages.shared.training.muon import MuonAdamW, newton_schulz
from tests.support.tiny_models import random_prompts, tiny_model

VOCABULARY = 64


def gradients(model) -> None:
    ids = torch.tensor(random_prompts(4, VOCABULARY, 10, 10))
    model(input_ids=ids, labels=ids).loss.backward()


def test_every_parameter_stands_in_one_part_and_moves():
    model = tiny_model(VOCABULARY, tied=False)
    optimizer = MuonAdamW(model, lr=0.02, adam_lr=1e-3, weight_decay=0.0)
    held = [id(parameter) for part in optimizer.optimizers for group in part.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    before = [parameter.detach().clone() for parameter in model.parameters()]
    gradients(model)
    optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_embeddings_and_vectors_are_adamws_matrices_are_muons():
    model = tiny_model(VOCABULARY)
    muon, adamw = MuonAdamW(model, 0.02, 1e-3, 0.0).optimizers
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    others = {names[id(parameter)] for parameter in adamw.param_groups[0]["params"]}
    matrices = {names[id(parameter)] for parameter in muon.param_groups[0]["params"]}
    assert "model.embed_tokens.weight" in others and all("norm" in name or "embed" in name for name in others)
    assert matrices and all("proj" in name for name in matrices)


def test_each_part_steps_as_torchs_own_optimizer_would(bfloat16_kernels):
    model = tiny_model(VOCABULARY)
    twin = copy.deepcopy(model)
    optimizer = MuonAdamW(model, lr=0.02, adam_lr=1e-3, weight_decay=0.01)
    matrices = [parameter for name, parameter in twin.named_parameters() if "proj" in name]
    others = [parameter for name, parameter in twin.named_parameters() if "proj" not in name]
    references = [
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.01, momentum=0.95, nesterov=True),
        torch.optim.AdamW(others, lr=1e-3, weight_decay=0.01, betas=(0.9, 0.95)),
    ]
    for _ in range(2):
        for owner in (model, twin):
            owner.zero_grad()
            gradients(owner)
        optimizer.step()
        for reference in references:
            reference.step()
    assert all(torch.equal(left, right) for left, right in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_scheduler_scales_both_rates():
    model = tiny_model(VOCABULARY)
    optimizer = MuonAdamW(model, lr=0.02, adam_lr=1e-3, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, 4, 20)
    for step in range(20):
        before = [parameter.detach().clone() for parameter in model.parameters()]
        optimizer.zero_grad()
        gradients(model)
        optimizer.step()
        used = [part.param_groups[0]["lr"] for part in optimizer.optimizers]
        share = used[0] / 0.02
        assert abs(used[1] / 1e-3 - share) < 1e-9
        assert share == (step / 4 if step <= 4 else share)
        moved = any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
        assert moved == (share > 0)
        schedule.step()
    assert share < 0.02


def test_a_copy_of_its_groups_still_moves_the_rates():
    """What the Trainer's preparation does: it replaces param_groups by copies and schedules those."""
    optimizer = MuonAdamW(tiny_model(VOCABULARY), lr=0.02, adam_lr=1e-3, weight_decay=0.0)
    optimizer.param_groups = [dict(group) for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] *= 0.5
    optimizer.step()
    assert [part.param_groups[0]["lr"] for part in optimizer.optimizers] == [0.01, 5e-4]


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (16, 16)])
def test_in_float32_it_is_torchs_orthogonalisation(shape):
    """Which rounds to bfloat16, 8 bits, at each of five steps; singular values end between .7 and 1.2."""
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    coefficients = (3.4445, -4.775, 2.0315)
    own, torchs = (of(grad.clone(), coefficients, 5, 1e-7).float() for of in (newton_schulz, _muon._zeropower_via_newtonschulz))
    assert own.shape == shape and (own - torchs).norm() < 0.03 * torchs.norm()
    # The polynomial on the singular values alone, in double precision.
    left, values, right = torch.linalg.svd(grad.double(), full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        values = sum(factor * values**power for factor, power in zip(coefficients, (1, 3, 5), strict=True))
    assert torch.allclose(own.double(), left @ values.diag() @ right, atol=1e-4) and values.min() > 0.5


def test_a_cpu_without_bfloat16_steps_in_float32(monkeypatch):
    model = tiny_model(VOCABULARY)
    other = copy.deepcopy(model)
    for one, has_kernels in ((model, True), (other, False)):
        monkeypatch.setattr(device, "multiplies_in", lambda dtype, has_kernels=has_kernels: has_kernels)
        gradients(one)
        optimizer, own = MuonAdamW(one, 0.02, 1e-3, 0.0), _muon._zeropower_via_newtonschulz
        optimizer.step()
        assert _muon._zeropower_via_newtonschulz is own
    pairs = [(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)]
    assert any(not torch.equal(a, b) for a, b in pairs) and all((a - b).norm() < 0.02 * a.norm() for a, b in pairs)
