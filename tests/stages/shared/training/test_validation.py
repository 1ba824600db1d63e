"""Validation as training goes on: the loss that it measures, and the step whose weights come out."""

import pytest
import torch

from stages.shared.lm.encoding import WeightedExample
from stages.shared.training.params import OptimizerSection
from stages.shared.training.trainer import collate, train_supervised
from stages.shared.training.validation import RankingCheck, RankingSums, Validation, validation_span
from stages.shared.training.weighted_loss import plain_forward, weighted_loss
from tests.stages.shared.training.test_checkpoints import Stopped, stop_at
from tests.support.tiny_models import tiny_model
from tests.support.training_run import PAD, SMALL, VOCABULARY, counting, run, uneven_rows

HELD_OUT = uneven_rows(3)


def params(**more) -> OptimizerSection:
    return OptimizerSection(**{**SMALL, "steps": 6, "batch_size": 2, "validate_steps": 2, **more})


def loss_of(model) -> float:
    batch = collate(HELD_OUT, PAD)
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits
    return weighted_loss(logits, batch["input_ids"], batch["weights"]).item()


def train(model, rows, checkpoints=None, ranking=None, **more):
    return train_supervised(model, rows, params(**more), PAD, checkpoints=checkpoints, held_out=HELD_OUT, ranking=ranking)


def diverging() -> list[WeightedExample]:
    """First what is validated, then its reverse: the best step is not the last one."""
    return [*HELD_OUT, *HELD_OUT[:1], *[WeightedExample(row.ids[::-1], row.weights) for row in HELD_OUT * 3][:8]]


def test_the_best_steps_weights_come_out():
    model = tiny_model(VOCABULARY)
    curve = train(model, diverging(), schedule="constant")
    validated = {row["step"]: row["validation"] for row in curve if "validation" in row}
    assert list(validated) == [2, 4, 6] and [row["step"] for row in curve] == [1, 2, 3, 4, 5, 6]
    assert validated[2] < validated[6], "the rows must be such that the last step is not the best"
    assert loss_of(model) == pytest.approx(min(validated.values()), rel=1e-4)


def test_with_adapters_the_best_steps_are_merged(monkeypatch):
    """As if the loss rose from step 2 on: the weights of a run of two steps."""
    more = {"schedule": "constant", "loss_chunk": 4, "lora": {"rank": 2, "targets": ["q_proj", "up_proj"]}}
    rising = iter([1.0, 2.0, 2.0])
    short, long = tiny_model(VOCABULARY), tiny_model(VOCABULARY)
    train(short, diverging(), steps=2, **more)
    monkeypatch.setattr(Validation, "mean_loss", lambda self: next(rising))
    train(long, diverging(), **more)
    assert all(torch.allclose(tensor, long.state_dict()[name], atol=1e-6) for name, tensor in short.state_dict().items())


@pytest.mark.parametrize("tied", [True, False])
def test_rows_of_tokens_beside_adapters_are_kept_and_resumed(tmp_path, monkeypatch, tied):
    """Of tied embeddings peft puts one adapter on both names, which the library does not save as it comes."""
    more = {"schedule": "constant", "save_steps": 2, "lora": {"rank": 2, "targets": ["q_proj"]}}

    def train_rows(model, folder):
        return train_supervised(model, diverging(), params(**more), PAD, token_ids=[3, 9, 20], checkpoints=folder, held_out=HELD_OUT)

    models = [tiny_model(VOCABULARY, tied=tied) for _ in range(3)]
    curve = train_rows(models[0], tmp_path / "undisturbed")
    validated = {row["step"]: row["validation"] for row in curve if "validation" in row}
    assert loss_of(models[0]) == pytest.approx(min(validated.values()), rel=1e-4)
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        stop_at(patched, 5)
        train_rows(models[1], tmp_path / "stopped")
    assert train_rows(models[2], tmp_path / "stopped") == curve
    assert all(torch.equal(tensor, models[2].state_dict()[name]) for name, tensor in models[0].state_dict().items())
    first = tiny_model(VOCABULARY, tied=tied).get_input_embeddings().weight
    moved = (models[0].get_input_embeddings().weight - first).abs().sum(dim=1).nonzero()[:, 0].tolist()
    assert moved == [3, 9, 20]


@pytest.mark.parametrize("decides", [True, False])
def test_rankings_decide_where_they_are_to(decides):
    """The loss rises from step 2 on, NDCG rises until step 4 and stays: the weights of four steps, or of two."""
    best = 4 if decides else 2
    short, long = tiny_model(VOCABULARY), tiny_model(VOCABULARY)
    train(short, diverging(), steps=best, validate_steps=best, schedule="constant")
    found = iter([RankingSums(1.0, 3, 4), RankingSums(3.0, 2, 4), RankingSums(3.0, 4, 4)])
    curve = train(long, diverging(), schedule="constant", ranking=RankingCheck(lambda model: next(found), decides))
    assert [row["validation_ndcg@5"] for row in curve if "validation" in row] == [0.25, 0.75, 0.75]
    assert all(torch.equal(tensor, long.state_dict()[name]) for name, tensor in short.state_dict().items())
    span = validation_span(curve, len(HELD_OUT), 4, decides)
    assert span["best_step"] == best and span["ranking"]["best"] == {"ndcg@5": 0.75 if decides else 0.25, "valid": 0.5 if decides else 0.75}
    assert span["ranking"]["last"] == {"ndcg@5": 0.75, "valid": 1.0} and span["best"] == curve[best - 1]["validation"]


@pytest.mark.parametrize("more", [{"loss_chunk": 4}, {"gradient_checkpointing": True}, {"precision": "bfloat16"}], ids=str)
def test_the_model_in_training_answers_as_it_will_when_it_is_saved(more):
    model = tiny_model(VOCABULARY)
    curve = train(model, uneven_rows(12), schedule="constant", lr=3e-3, ranking=counting(5), **more)
    with plain_forward(model):  # the Trainer's autocast stays on the model
        sums = counting(5).answer(model)
    # The best step is the last one here, so the weights that came out are those that answered.
    assert min(row["validation"] for row in curve if "validation" in row) == curve[-1]["validation"]
    assert curve[-1]["validation_ndcg@5"] == sums.ndcg / 5 and curve[-1]["validation_valid"] == sums.valid / 5 > 0
    plain = train(tiny_model(VOCABULARY), uneven_rows(12), schedule="constant", lr=3e-3, **more)
    assert [row["loss"] for row in curve] == [row["loss"] for row in plain], "to be asked must not change the training"


def test_validation_does_not_change_the_training():
    curves = [train(tiny_model(VOCABULARY), diverging(), validate_steps=every) for every in (0, 2)]
    assert curves[0] == [{name: row[name] for name in ("step", "loss", "lr")} for row in curves[1]]


def test_a_stopped_run_remembers_what_was_best(tmp_path, monkeypatch):
    undisturbed = tiny_model(VOCABULARY)
    curve = train(undisturbed, diverging(), schedule="constant")
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        stop_at(patched, 5)
        train(tiny_model(VOCABULARY), diverging(), tmp_path, schedule="constant", save_steps=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best-2", "checkpoint-4"]
    resumed = tiny_model(VOCABULARY)
    assert train(resumed, diverging(), tmp_path, schedule="constant", save_steps=2) == curve
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in undisturbed.state_dict().items())


def test_two_processes_measure_the_loss_of_all_rows(tmp_path):
    """Three rows in two processes: one of them has a batch without weight."""
    model = tiny_model(VOCABULARY)
    alone = train_supervised(model, uneven_rows(4), params(steps=2, loss_mean="step"), PAD, held_out=HELD_OUT)
    both = run(tmp_path, 2, 4, steps=2, validate_steps=2, loss_mean="step", held_out=3, ranked=3)[1]
    asked = counting(3).answer(model)
    assert both[-1]["validation_ndcg@5"] == pytest.approx(asked.ndcg / 3) and both[-1]["validation_valid"] == pytest.approx(asked.valid / 3)
    assert both[-1]["validation"] == pytest.approx(alone[-1]["validation"], rel=1e-3)


@pytest.mark.parametrize("more", [{"validate_steps": 4}, {"validate_steps": 3, "log_every": 2}])
def test_steps_that_the_curve_lacks_are_refused(more):
    with pytest.raises(ValueError, match=r"validate_steps: . must be a multiple of log_every: . and divide steps: 6"):
        params(**more)
