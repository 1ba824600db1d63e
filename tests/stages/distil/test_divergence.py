"""Divergences and their gradients against torch's own, from whole logits; in chunks, in one piece, and through the head of a model."""

import pytest
import torch
import torch.nn.functional as F

from stages.distil.divergence import divergence_forward, divergence_sum, divergences, own_forward
from stages.distil.params import DistilParams
from stages.shared.core.errors import StageError
from tests.support.tiny_models import tiny_model

KINDS = ["forward", "reverse", "jsd"]
VOCABULARY = 64


def params(**more: object) -> DistilParams:
    return DistilParams.model_validate({"mode": "on_policy", "teacher": "models/teacher", "loss_chunk": 5, **more})


def plain(student: torch.Tensor, teacher: torch.Tensor, kind: str, beta: float) -> torch.Tensor:
    """[N], by torch's own kl_div(log Q, P) = KL(P || Q) of probabilities, in float64."""
    q, p = student.double().softmax(-1), teacher.double().softmax(-1)

    def kl(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return F.kl_div(other.log(), one, reduction="none").sum(-1)

    if kind == "forward":
        return kl(p, q)
    if kind == "reverse":
        return kl(q, p)
    mixture = beta * p + (1 - beta) * q
    return beta * kl(p, mixture) + (1 - beta) * kl(q, mixture)


@pytest.mark.parametrize("beta", [0.1, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_those_of_probabilities(kind: str, beta: float) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(7, 50, generator=generator) for _ in range(2))
    student.requires_grad_(True)
    found, expected = divergences(student, teacher, kind, beta), plain(student, teacher, kind, beta)
    assert torch.allclose(found.double(), expected, rtol=1e-4)
    [own], [other] = (torch.autograd.grad(values.sum(), student) for values in (found, expected))
    assert torch.allclose(own, other.float(), atol=1e-5) and own.abs().max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_far_apart_stays_finite(kind: str) -> None:
    student, teacher = torch.tensor([[200.0, -200.0]], requires_grad=True), torch.tensor([[-200.0, 200.0]])
    value = divergences(student, teacher, kind).sum()
    [gradient] = torch.autograd.grad(value, student)
    assert value.isfinite() and gradient.isfinite().all()
    assert kind != "jsd" or value.item() == pytest.approx(torch.tensor(2.0).log().item()), "the most that halves can be apart"


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two rows of 11 tokens, of which some count, with weights of their own."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, VOCABULARY, (2, 11), generator=generator)
    weights = torch.zeros(2, 11)
    weights[0, 4:9], weights[1, 2:11] = 1.0, 0.5
    return ids, torch.arange(11).expand(2, -1), weights


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> torch.Tensor:
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_chunks_are_whole_logits(kind: str, chunk: int) -> None:
    student, teacher = tiny_model(VOCABULARY), tiny_model(VOCABULARY, seed=1)
    ids, positions, weights = batch()
    found = divergence_sum(student, teacher, ids, positions, weights, params(divergence=kind, loss_chunk=chunk))
    logits, known = (model(input_ids=ids, position_ids=positions).logits[:, :-1].flatten(0, 1) for model in (student, teacher))
    expected = (plain(logits, known.detach(), kind, 0.5) * weights[:, 1:].flatten()).sum()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    own, other = gradients(student, found), gradients(student, expected)
    assert torch.allclose(own, other, atol=1e-4 * other.abs().max().item())


def test_no_logits_of_more_than_a_chunk_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = tiny_model(VOCABULARY), tiny_model(VOCABULARY, seed=1)
    seen: list[int] = []
    for model in (student, teacher):
        model.get_output_embeddings().register_forward_hook(lambda module, inputs, output: seen.append(output.shape[0]))
    divergence_sum(student, teacher, *batch(), params()).backward()
    assert max(seen) == 5 and sum(seen) == 14 * 4, "14 tokens, both heads, forward and backward"


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_that_is_its_teacher_has_nothing_to_learn(kind: str) -> None:
    student, teacher = tiny_model(VOCABULARY), tiny_model(VOCABULARY)
    loss = divergence_sum(student, teacher, *batch(), params(divergence=kind))
    assert abs(loss.item()) < 1e-4
    assert gradients(student, loss).abs().max() < 1e-4
    assert all(part.grad is None for part in teacher.parameters())


def test_the_forward_is_the_loss_while_open_and_logits_for_sampling() -> None:
    student, teacher = tiny_model(VOCABULARY), tiny_model(VOCABULARY, seed=1)
    ids, positions, weights = batch()
    with divergence_forward(student, teacher, params()):
        assert student(input_ids=ids, position_ids=positions, weights=weights).shape == ()
        with own_forward(student):
            assert student(input_ids=ids).logits.shape == (2, 11, VOCABULARY)
        assert student(input_ids=ids, position_ids=positions, weights=weights).shape == ()
    assert student(input_ids=ids).logits.shape == (2, 11, VOCABULARY)


def test_logits_changed_after_the_head_are_refused() -> None:
    student, teacher = tiny_model(VOCABULARY), tiny_model(VOCABULARY, seed=1)
    teacher.config.final_logit_softcapping = 30.0
    with pytest.raises(StageError, match="changes its logits after its head"), divergence_forward(student, teacher, params()):
        pass
