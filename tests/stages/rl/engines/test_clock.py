"""Shares of a step's time, against intervals written down by hand."""

import pytest

from stages.rl.engines import clock as module
from stages.rl.engines.clock import GENERATING, TRAINING, StepClock


def test_overlapping_spans_count_once_and_open_ones_go_on(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    clock = StepClock()
    generating = clock.measure(GENERATING)
    now[0] = 2.0
    generating.__enter__()  # 2 to 12
    now[0] = 4.0
    with clock.measure(TRAINING):  # 4 to 7
        now[0] = 7.0
    now[0] = 10.0
    assert clock.shares() == pytest.approx({"share_generating": 0.8, "share_training": 0.3, "share_idle": 0.2})
    now[0] = 12.0
    generating.__exit__(None, None, None)
    now[0] = 15.0
    with clock.measure(TRAINING):  # 15 to 16
        now[0] = 16.0
    now[0] = 20.0
    assert clock.shares() == pytest.approx({"share_generating": 0.2, "share_training": 0.1, "share_idle": 0.7})
