import csv
import math

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from stages.shared.lm.encoding import WeightedExample, pack
from stages.shared.training.params import OptimizerSection
from stages.shared.training.trainer import WeightedTrainer, collate, train_supervised, write_curve
from stages.shared.training.weighted_loss import weighted_loss
from tests.support.tiny_models import tiny_model

VOCABULARY, PAD = 64, 0
SMALL = {"steps": 30, "batch_size": 4, "lr": 3e-3, "log_every": 1, "threads": 1}


def made(count: int, seed: int = 0, shortest: int = 5, longest: int = 12) -> list[WeightedExample]:
    """Sequences that count upwards from a random token; the first two tokens weigh nothing."""
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        start, length = int(rng.integers(2, 20)), int(rng.integers(shortest, longest + 1))
        examples.append(WeightedExample([start + step for step in range(length)], [0.0, 0.0, *[1.0] * (length - 2)]))
    return examples


def trained(examples, model=None, **more) -> tuple[torch.nn.Module, list[dict[str, float]]]:
    model = model or tiny_model(VOCABULARY)
    return model, train_supervised(model, examples, OptimizerSection(**{**SMALL, **more}), PAD)


def test_loss_weighs_each_token():
    logits = torch.randn(2, 4, 7, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[1, 2, 3, 4], [6, 5, 0, 0]])
    weights = torch.tensor([[9.0, 0.0, 0.5, 1.0], [9.0, 2.0, 0.0, 0.0]])
    total = counted = 0.0
    for row in range(2):
        for place in range(1, 4):
            scores = [math.exp(value) for value in logits[row, place - 1].tolist()]
            total += float(weights[row, place]) * -math.log(scores[int(ids[row, place])] / sum(scores))
            counted += float(weights[row, place])
    assert float(weighted_loss(logits, ids, weights)) == pytest.approx(total / counted, rel=1e-5)


def test_a_batch_is_padded_on_the_right_with_weights_of_zero():
    batch = collate([WeightedExample([3, 4, 5], [0.0, 1.0, 0.5]), WeightedExample([6], [0.0])], PAD)
    assert batch["input_ids"].tolist() == [[3, 4, 5], [6, 0, 0]] and batch["input_ids"].dtype == torch.long
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["weights"].tolist() == [[0.0, 1.0, 0.5], [0.0, 0.0, 0.0]] and batch["weights"].dtype == torch.float32


def trainer_of(model, folder, examples=(), **more) -> WeightedTrainer:
    arguments = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to=[], remove_unused_columns=False, **more)
    return WeightedTrainer(model=model, args=arguments, train_dataset=list(examples), data_collator=lambda part: collate(part, PAD))


def test_logits_of_the_counted_tokens_alone_give_the_same_loss_and_gradient(tmp_path):
    model = tiny_model(VOCABULARY)
    examples = [WeightedExample(list(range(2, 14)), [0.0] * 7 + [1.0] * 5), WeightedExample(list(range(9, 16)), [0.0] * 4 + [0.5] * 3)]
    batch = collate(examples, PAD)
    short = trainer_of(model, tmp_path).compute_loss(model, batch)
    full = weighted_loss(
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits, batch["input_ids"], batch["weights"]
    )
    assert short.item() == pytest.approx(full.item(), rel=1e-5)
    gradients = zip(*(torch.autograd.grad(loss, list(model.parameters())) for loss in (short, full)), strict=True)
    assert all(torch.allclose(left, right, atol=1e-5) for left, right in gradients)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_packed_documents_do_not_see_each_other(tmp_path, precision):
    """Two documents in one row, and a row that is padded: the loss of each alone."""
    model = tiny_model(VOCABULARY)
    examples = made(3, seed=4)
    row = pack(examples[:2], 100)
    trainer = trainer_of(model, tmp_path)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        packed = trainer.compute_loss(model, collate([*row, examples[2]], PAD)).item()
        alone = [(trainer.compute_loss(model, collate([one], PAD)).item(), sum(one.weights)) for one in examples]
    expected = sum(loss * weight for loss, weight in alone) / sum(weight for _, weight in alone)
    assert len(row) == 1 and packed == pytest.approx(expected, rel=1e-5 if precision == "float32" else 2e-2)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_constant_rate_stays_after_its_warmup(optimizer):
    rates = [row["lr"] for row in trained(made(40), steps=10, warmup=0.2, optimizer=optimizer, schedule="constant")[1]]
    assert rates[0] < rates[2] == rates[9]


def test_accumulated_batches_learn_as_one(tmp_path):
    """Examples of equal weight: four at once, or two and two, are the same step."""
    examples = made(4, shortest=8, longest=8)
    plain, halves = (trained(examples, steps=1, batch_size=size, accumulate=4 // size, warmup=0.0) for size in (4, 2))
    assert plain[1][0]["loss"] == pytest.approx(halves[1][0]["loss"], rel=1e-4)
    changed = zip(plain[0].parameters(), halves[0].parameters(), strict=True)
    assert all(torch.allclose(left, right, atol=2e-4) for left, right in changed)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_lowers_the_loss(optimizer):
    model, curve = trained(made(120), optimizer=optimizer)
    assert [row["step"] for row in curve] == list(range(1, 31)) and not model.training
    assert curve[-1]["loss"] < 0.7 * curve[0]["loss"]
    rates = [row["lr"] for row in curve]
    assert max(rates) == pytest.approx(0.02 if optimizer == "muon" else 3e-3, rel=0.1) and rates[-1] < 0.1 * max(rates)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_same_seed_same_weights(optimizer):
    first, second = (trained(made(40), steps=5, optimizer=optimizer)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("change", [{"lr": 1e-3}, {"warmup": 0.9}, {"weight_decay": 0.9}, {"batch_size": 2}, {"steps": 4}])
def test_parameters_of_training_change_the_weights(change):
    plain = trained(made(40), steps=5)[0].state_dict()
    other = trained(made(40), **{"steps": 5, **change})[0].state_dict()
    assert any(not torch.equal(plain[name], other[name]) for name in plain)


def test_examples_come_in_the_order_given(monkeypatch):
    """A curriculum is the caller's: the sampler neither shuffles nor drops."""
    seen = []

    class Watched(WeightedTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            seen.extend(inputs["input_ids"][:, 0].tolist())
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    monkeypatch.setattr("stages.shared.training.trainer.WeightedTrainer", Watched)
    examples = [WeightedExample([number, 1, 1], [0.0, 0.0, 1.0]) for number in range(2, 22)]
    trained(examples, steps=5, batch_size=2, accumulate=2)
    assert seen == list(range(2, 22))


def test_tokens_without_weight_are_not_learnt():
    """Examples that differ only in what carries no weight as a target, after the last counted token, give equal weights."""
    left = [WeightedExample([5, 6, 7, number], [0.0, 1.0, 1.0, 0.0]) for number in range(10, 18)]
    right = [WeightedExample([5, 6, 7, number], [0.0, 1.0, 1.0, 0.0]) for number in range(20, 28)]
    first, second = (trained(examples, steps=2)[0].state_dict() for examples in (left, right))
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_bfloat16_is_autocast_over_float32_weights(bfloat16_kernels):
    model, curve = trained(made(40), steps=5, precision="bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    plain = trained(made(40), steps=5)[1]
    assert curve != plain and curve[-1]["loss"] == pytest.approx(plain[-1]["loss"], rel=0.1)


def test_gradient_checkpointing_learns_the_same():
    plain, saved = (trained(made(20), steps=3, gradient_checkpointing=on)[0] for on in (False, True))
    pairs = zip(plain.parameters(), saved.parameters(), strict=True)
    assert all(torch.allclose(left, right, atol=1e-4) for left, right in pairs)


def test_the_curve_as_a_file(tmp_path):
    rows = [{"step": 1.0, "loss": 2.5, "lr": 0.001}, {"step": 2.0, "loss": 1.25, "lr": 0.0005}]
    write_curve(rows, tmp_path / "loss.csv")
    with (tmp_path / "loss.csv").open() as file:
        assert [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)] == rows
