import numpy as np
import pytest

from stages.report.diagnostics.repeats import of_repeats
from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.stats.bootstrap import Bootstrap, paired_interval
from stages.shared.stats.metrics import NAMES

TARGETS, USERS = np.array([1, 0, 2, 2]), np.array([0, 0, 1, 2])


def judged(orders, faults=("", "", "", "")):
    return Rankings(np.array(orders), list(faults), [""] * 4)


AS_IS = [[0, 1, 2]] * 4
LIFTS = [[target, *({0, 1, 2} - {target})] for target in TARGETS.tolist()]
SINKS = [[*({0, 1, 2} - {target}), target] for target in TARGETS.tolist()]


def test_envelopes_by_hand():
    """One answer lifts every target to the top, one sinks it to the bottom, one is invalid and so the initial ranking."""
    answers = [judged(LIFTS), judged(SINKS), judged(AS_IS, ["outside"] * 4)]
    found = of_repeats({"rl": answers}, {"rl": judged(LIFTS)}, TARGETS, 0.7, Bootstrap(USERS, 200, 1))
    assert (found["n"], found["temperature"], found["valid_share"]) == (4, 0.7, {"rl": pytest.approx(2 / 3)})
    assert set(found["models"]["rl"]) == set(NAMES)
    mrr, recall = found["models"]["rl"]["mrr"], found["models"]["rl"]["recall@1"]
    before = np.array([1 / 2, 1, 1 / 3, 1 / 3])
    assert mrr["optimistic"]["mean"] == 1 and mrr["pessimistic"]["mean"] == pytest.approx(1 / 3) and mrr["repeats"] == 3
    assert mrr["mean"]["mean"] == pytest.approx((1 + 1 / 3 + before.mean()) / 3)
    assert mrr["mean"]["diff"] == pytest.approx(mrr["mean"]["mean"] - before.mean())
    assert (recall["pessimistic"]["diff"], recall["optimistic"]["diff"], recall["greedy"]["mean"]) == (-0.25, 0.75, 1.0)
    assert mrr["greedy"]["diff"] == pytest.approx(1 - before.mean())
    assert mrr["greedy"]["diff_ci"] == pytest.approx(paired_interval(1 - before, Bootstrap(USERS, 200, 1)))


def test_a_model_that_answers_alike_has_no_envelope():
    found = of_repeats({"sft": [judged(LIFTS)] * 3}, {"sft": judged(LIFTS)}, TARGETS, 0.1, Bootstrap(USERS, 100, 1))["models"]["sft"]
    for entry in found.values():
        assert entry["pessimistic"]["mean"] == entry["mean"]["mean"] == entry["optimistic"]["mean"] == entry["greedy"]["mean"]
