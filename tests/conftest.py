"""The order of the tests, the long ones first, so that of several processes (pytest -n) none is left with one at the end; their server."""

import gc
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support import shared_server

TESTS = Path(__file__).parent
# Longest first, by the --durations of make test. The first makes the smoke run that others wait for, two minutes and more: until then the
# next ones and the one behind them do not need it. A process takes a file more as soon as it has two tests left: behind test_two_nodes.py
# comes a short one.
FIRST = [
    *("test_two_nodes.py", "test_deepspeed.py", "test_nodes.py", "test_determinism.py", "test_vllm_engine.py", "test_tiny_qwen3.py"),
    *("test_cpu_levels.py", "test_scripts.py", "test_flow.py", "test_experiments.py", "test_smoke_run.py"),
]
ROOMS = ["flows", "end_to_end", "bench", "tasks"]  # whose tests run whole projects; the rest behind them


# Tests never assert on seconds: an example that takes a while on a busy machine is no failure.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Bytes are not spelled out: those of gzip hold the second they were made in, and all processes must name a test the same."""
    return argname if isinstance(val, bytes) else None


def pytest_collection(session: pytest.Session) -> None:
    gc.disable()  # every test process imports all tests, and with them torch and Prefect: collections in between are a third of that


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()
    gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    gc.unfreeze()  # else nanobind says at the end that they leak


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _place(item.path))  # stable: else as they were


def _place(path: Path) -> tuple[int, int]:
    room = path.relative_to(TESTS).parts[0]
    return (
        FIRST.index(path.name) if path.name in FIRST else len(FIRST),
        ROOMS.index(room) if room in ROOMS else len(ROOMS),
    )


@pytest.fixture
def bfloat16_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process computes in bfloat16 where it is asked to, however slowly this machine does."""
    monkeypatch.setattr("stages.shared.core.device.multiplies_in", lambda dtype, where="auto": True)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[str]:
    """The API address of a real Prefect server, as a team would run it. All test processes share it: its start takes ten seconds."""
    own = tmp_path_factory.getbasetemp()
    with shared_server.use((own if worker_id == "master" else own.parent) / "prefect") as url:
        yield url
