import numpy as np
import pytest

from stages.report.diagnostics.quantization_gate import gate_note, quantization_gate
from stages.report.metrics_model import QuantizationGate
from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.stats.bootstrap import Bootstrap

SLATES, SIZE = 400, 6
MADE = {"calibration": {"kl": 0.01}, "bytes": {"share_of_bfloat16": 0.51}}


def rankings(orders: np.ndarray, invalid: int = 0) -> Rankings:
    return Rankings(orders, ["cut"] * invalid + [""] * (len(orders) - invalid), [""] * len(orders))


def gate(full: Rankings, quantized: Rankings, targets: np.ndarray, margin: float = 0.01) -> dict:
    users = np.arange(len(targets)) // 2
    found = quantization_gate(full, quantized, targets, margin, Bootstrap(users, 500, 7), MADE)
    QuantizationGate.model_validate(found)
    return found


@pytest.fixture
def answered() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return np.array([rng.permutation(SIZE) for _ in range(SLATES)]), rng.integers(0, SIZE, SLATES)


def test_the_same_answers_pass(answered):
    orders, targets = answered
    found = gate(rankings(orders), rankings(orders), targets)
    assert found["passed"] and found["difference"] == 0 and found["interval"] == [0, 0]
    assert found["equal_share"] == 1 and found["right_to_wrong"] == found["wrong_to_right"] == 0
    assert "passes its gate" in gate_note(found) and "51 % of the bytes" in gate_note(found)


def test_a_worse_copy_fails_and_flips_are_counted(answered):
    """The target of every tenth slate goes to the end."""
    orders, targets = answered
    worse = orders.copy()
    for row in range(0, SLATES, 10):
        worse[row] = [*[one for one in orders[row] if one != targets[row]], targets[row]]
    found = gate(rankings(orders), rankings(worse), targets)
    assert not found["passed"] and found["difference"] < -0.01 and "FAILS" in gate_note(found)
    first = orders[::10, 0] == targets[::10]
    assert found["right_to_wrong"] == first.sum() > 0 and found["wrong_to_right"] == 0
    assert found["equal_share"] == pytest.approx((orders == worse).all(axis=1).mean())
    back = gate(rankings(worse), rankings(orders), targets)
    assert back["passed"] and back["difference"] == pytest.approx(-found["difference"])
    assert back["wrong_to_right"] == found["right_to_wrong"]
    assert gate(rankings(orders), rankings(worse), targets, margin=0.5)["passed"], "the margin decides"


def test_no_difference_on_average_is_not_enough(answered):
    """As many better as worse, so few that nobody can say: the interval reaches below the margin."""
    orders, targets = (part[:40] for part in answered)
    changed = orders.copy()
    for row in range(40):
        others = [one for one in orders[row] if one != targets[row]]
        changed[row] = [*others, targets[row]] if row % 2 else [targets[row], *others]
    found = gate(rankings(orders), rankings(changed), targets, margin=0.02)
    assert not found["passed"] and found["interval"][0] < -0.02


def test_answers_that_are_no_permutation_are_counted(answered):
    orders, targets = answered
    assert gate(rankings(orders), rankings(orders, invalid=40), targets)["valid_difference"] == pytest.approx(-0.1)
