"""What asks a run to stop."""

import os
import signal
from collections.abc import Iterator

import pytest

from flows.server.signals import stop_signals, stopping


@pytest.fixture
def heard() -> Iterator[None]:
    """Under nohup the test's own process ignores SIGHUP, and so would `stopping`."""
    earlier = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, earlier)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_calls_stop_once_and_the_handlers_come_back(number: signal.Signals) -> None:
    earlier = [signal.getsignal(other) for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    calls: list[int] = []
    with stopping(lambda: calls.append(1)):
        os.kill(os.getpid(), number)
    assert calls == [1]
    assert [signal.getsignal(other) for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == earlier


def test_under_nohup_a_closed_terminal_stops_nothing() -> None:
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert stop_signals() == [signal.SIGINT, signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, earlier)
