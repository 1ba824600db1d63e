import copy

import torch
from transformers import get_cosine_schedule_with_warmup

from stages.shared.training.muon import MuonAdamW
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


def test_each_part_steps_as_torchs_own_optimizer_would():
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
