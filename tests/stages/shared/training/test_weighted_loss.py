"""The loss in chunks against the plain one, and a mean over a whole step against one large batch."""

import pytest
import torch

from stages.shared.core.errors import StageError
from stages.shared.lm.encoding import WeightedExample, pack
from stages.shared.training.ordinal import OrdinalWords
from stages.shared.training.params import OptimizerSection
from stages.shared.training.trainer import collate, train_supervised
from stages.shared.training.weighted_loss import chunked_forward, weighted_loss
from tests.support.tiny_models import tiny_model
from tests.support.training_run import PAD, SMALL, VOCABULARY, run, trained, uneven_rows

ORDINAL = OrdinalWords(list(range(20, 32)), 1.5)


def batch_of(examples):
    return collate(examples, PAD)


def plain_loss(model, batch, ordinal=None):
    logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
    return weighted_loss(logits, batch["input_ids"], batch["weights"], ordinal)


def chunked_loss(model, batch, chunk, ordinal=None):
    with chunked_forward(model, chunk, ordinal):
        total = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], weights=batch["weights"])
    return total / batch["weights"][:, 1:].sum()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("ordinal", [None, ORDINAL])
@pytest.mark.parametrize("chunk", [1, 7, 64, 10_000])
def test_chunks_give_the_plain_loss_and_its_gradients(chunk, ordinal, tied):
    model = tiny_model(VOCABULARY, tied=tied)
    batch = batch_of([*pack(uneven_rows(3), 80), *uneven_rows(4)])
    left, right = plain_loss(model, batch, ordinal), chunked_loss(model, batch, chunk, ordinal)
    assert right.item() == pytest.approx(left.item(), rel=1e-5)
    gradients = [torch.autograd.grad(loss, list(model.parameters())) for loss in (left, right)]
    assert all(torch.allclose(*pair, rtol=1e-4, atol=1e-6) for pair in zip(*gradients, strict=True))


def test_no_logits_are_wider_than_a_chunk_nor_made_for_tokens_without_weight():
    model, chunk = tiny_model(VOCABULARY), 8
    examples = [WeightedExample(list(range(2, 42)), [0.0] * 20 + [1.0] * 20), *uneven_rows(2)]
    batch = batch_of(examples)
    seen: list[torch.Size] = []
    handle = model.get_output_embeddings().register_forward_hook(lambda module, args, output: seen.append(output.shape))
    chunked_loss(model, batch, chunk).backward()
    handle.remove()
    counted = int((batch["weights"][:, 1:] > 0).sum())
    chunks = -(-counted // chunk)
    assert counted == 20 + 5 + 14 and set(seen) == {(chunk, VOCABULARY)}
    assert len(seen) == 2 * chunks, "once in the forward pass, once in the backward pass"


def test_a_batch_without_weights_has_a_loss_of_zero_and_a_gradient_for_every_parameter():
    model = tiny_model(VOCABULARY)
    batch = batch_of([WeightedExample([5, 6, 7], [0.0, 0.0, 0.0])])
    with chunked_forward(model, 4, None):
        total = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], weights=batch["weights"])
    total.backward()
    assert total.item() == 0 and all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_the_models_own_forward_is_back_afterwards():
    model = tiny_model(VOCABULARY)
    with pytest.raises(RuntimeError, match="inside"), chunked_forward(model, 4, None):
        raise RuntimeError("inside")
    assert model(input_ids=torch.tensor([[3, 4]])).logits.shape == (1, 2, VOCABULARY)


def test_a_model_that_changes_its_logits_after_its_head_is_refused():
    model = tiny_model(VOCABULARY)
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(StageError, match=r"loss_chunk: .*final_logit_softcapping.*set it to 0"), chunked_forward(model, 4, None):
        pass


def share_moved_otherwise(left, right) -> float:
    """Share of the entries that differ by a fiftieth of a step: Adam's first step is the sign of the gradient, rounding and all."""
    return sum(int((left[name] - right[name]).abs().gt(2e-4).sum()) for name in left) / sum(tensor.numel() for tensor in left.values())


@pytest.mark.parametrize("more", [{}, {"precision": "bfloat16"}, {"gradient_checkpointing": True, "optimizer": "muon"}])
def test_a_run_with_chunks_is_the_run_without(more):
    plain, chunked = (trained(OptimizerSection(**SMALL, **more, loss_chunk=chunk), 2) for chunk in (0, 5))
    tolerance = 5e-2 if "precision" in more else 1e-4
    assert [row["loss"] for row in chunked[1]] == pytest.approx([row["loss"] for row in plain[1]], rel=tolerance)
    assert "precision" in more or share_moved_otherwise(plain[0], chunked[0]) < 5e-3


@pytest.mark.parametrize("chunk", [0, 5])
def test_accumulated_batches_of_uneven_weight_step_as_one_batch(chunk):
    step = {"loss_mean": "step", "loss_chunk": chunk, "steps": 1}
    whole = trained(OptimizerSection(**{**SMALL, **step, "batch_size": 4}), 4)
    parts = trained(OptimizerSection(**{**SMALL, **step, "accumulate": 4}), 4)
    batchwise = trained(OptimizerSection(**{**SMALL, **step, "accumulate": 4, "loss_mean": "batch"}), 4)
    assert parts[1][0]["loss"] == pytest.approx(whole[1][0]["loss"], rel=1e-5)
    assert batchwise[1][0]["loss"] != pytest.approx(whole[1][0]["loss"], rel=1e-3), "the rows must be uneven enough to tell"
    assert share_moved_otherwise(parts[0], whole[0]) < 1e-3 < 0.05 < share_moved_otherwise(batchwise[0], whole[0])


def test_two_processes_step_as_one(tmp_path):
    step = {"loss_mean": "step", "loss_chunk": 5, "steps": 2}
    whole = trained(OptimizerSection(**{**SMALL, **step, "batch_size": 4}), 8)
    halves = run(tmp_path, 2, 8, **step, accumulate=2)
    assert [row["loss"] for row in halves[1]] == pytest.approx([row["loss"] for row in whole[1]], rel=1e-4)
    assert share_moved_otherwise(halves[0], whole[0]) < 1e-2


def test_the_default_reads_whole_logits_and_the_mean_of_each_batch():
    assert (OptimizerSection().loss_chunk, OptimizerSection().loss_mean) == (0, "batch")
    first, second = (tiny_model(VOCABULARY) for _ in range(2))
    train_supervised(first, uneven_rows(2), OptimizerSection(**SMALL), PAD)
    train_supervised(second, uneven_rows(2), OptimizerSection(**SMALL, loss_mean="step"), PAD)
    assert share_moved_otherwise(first.state_dict(), second.state_dict()) < 1e-3, "of one process without accumulation both are the same"
