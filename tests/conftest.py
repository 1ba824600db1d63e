"""The order of the tests: the long ones first, so that of several processes (pytest -n) none is left with one at the end."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ORDER = {"end_to_end": 0, "flows": 1, "bench": 2, "tasks": 3}  # rooms whose tests run whole projects; the rest behind them


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.get(item.path.relative_to(TESTS).parts[0], len(ORDER)))  # stable: else as they were
