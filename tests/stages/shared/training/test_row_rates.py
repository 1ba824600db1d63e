"""Some rows of an embedding learn at a rate of their own: the step that AdamW would take at that rate, the other rows' unchanged."""

import pytest
import torch

from stages.shared.core.errors import StageError
from stages.shared.lm.encoding import WeightedExample
from stages.shared.training.muon import MuonAdamW
from stages.shared.training.params import OptimizerSection
from stages.shared.training.row_rates import RowRates
from stages.shared.training.trainer import train_supervised
from tests.support.tiny_models import tiny_model

IDS, VOCABULARY = [40, 41, 47], 48
TOKENS = torch.arange(VOCABULARY).reshape(2, -1)


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def one_step(tied: bool, lr: float, decay: float = 0.1, ratio: float | None = None, muon: bool = False, steps: int = 1):
    model = tiny_model(VOCABULARY, tied=tied)
    rates = RowRates(model, IDS, ratio) if ratio is not None else None
    optimizer = MuonAdamW(model, lr, lr, decay) if muon else torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)
    before = weights_of(model)
    for _ in range(steps):
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    if rates:
        rates.stop()
    return before, weights_of(model)


@pytest.mark.parametrize("tied", [True, False])
def test_the_step_is_that_of_adamw_at_their_own_rate(tied):
    before, base = one_step(tied, 1e-3)
    _, fast = one_step(tied, 5e-3)
    _, mixed = one_step(tied, 1e-3, ratio=5.0)
    for name in before:
        rows = (
            torch.isin(torch.arange(len(before[name])), torch.tensor(IDS))
            if name.endswith(("embed_tokens.weight", "lm_head.weight"))
            else None
        )
        if rows is None:
            assert torch.equal(mixed[name], base[name]), name
            continue
        assert torch.equal(mixed[name][~rows], base[name][~rows]), name
        torch.testing.assert_close(mixed[name][rows], fast[name][rows], atol=1e-6, rtol=1e-5)
        ratio = (mixed[name] - before[name])[rows].norm() / (base[name] - before[name])[rows].norm()
        assert float(ratio) == pytest.approx(5.0, rel=1e-3)


def test_under_muon_each_step_is_scaled_once():
    """Its step calls those of two optimizers."""
    before, base = one_step(True, 1e-3, muon=True)
    _, mixed = one_step(True, 1e-3, muon=True, ratio=3.0)
    name = "model.embed_tokens.weight"
    moved = [(after[name] - before[name])[IDS].norm() for after in (base, mixed)]
    assert float(moved[1] / moved[0]) == pytest.approx(3.0, rel=1e-3)


def test_at_rate_zero_rows_stay_and_after_the_stop_they_move():
    before, mixed = one_step(True, 1e-3, ratio=0.0, steps=3)
    name = "model.embed_tokens.weight"
    torch.testing.assert_close(mixed[name][IDS], before[name][IDS], atol=1e-7, rtol=0)
    before, after = one_step(True, 1e-3)
    assert not torch.equal(before[name][IDS], after[name][IDS])


def test_through_the_trainer():
    rows = [WeightedExample(TOKENS[i % 2].tolist(), [1.0] * 24) for i in range(4)]
    params = OptimizerSection(threads=1, processes=1, steps=1, batch_size=4, warmup=0.0, lr=1e-3, log_every=1, schedule="constant")
    moved = []
    for ratio in (1.0, 4.0):
        model = tiny_model(VOCABULARY)
        before = weights_of(model)["model.embed_tokens.weight"]
        rates = RowRates(model, IDS, ratio)
        train_supervised(model, rows, params, 0)
        rates.stop()
        moved.append((weights_of(model)["model.embed_tokens.weight"] - before)[IDS].norm())
    assert float(moved[1] / moved[0]) == pytest.approx(4.0, rel=1e-3)


def test_an_optimizer_of_copies_is_an_error():
    model = tiny_model(VOCABULARY)
    RowRates(model, IDS, 2.0)
    copy = torch.nn.Parameter(torch.ones(3))
    copy.grad = torch.ones(3)
    optimizer = torch.optim.AdamW([copy])
    with pytest.raises(StageError, match=r"midtrain\.new_rows_lr: 0"):
        optimizer.step()
    optimizer.step()  # the hooks are gone with the error
