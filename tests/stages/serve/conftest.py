"""One small finished run, and its reranker, for all tests of this folder. Nobody writes into it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stages.serve import rerank
from stages.serve.reranker import Reranker, open_reranker
from tests.support import serve_project


@pytest.fixture(scope="package")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Its folder, which is the current directory as long as tests of this package run."""
    folder, before = tmp_path_factory.mktemp("run"), Path.cwd()
    os.chdir(folder)
    serve_project.write_run(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(scope="package")
def reranker(finished_run: Path) -> Iterator[Reranker]:
    with open_reranker() as opened:
        yield opened


@pytest.fixture(scope="package")
def one_pass(finished_run: Path) -> Iterator[Reranker]:
    with open_reranker(mode="one-pass") as opened:
        yield opened


@pytest.fixture
def opened_once(monkeypatch: pytest.MonkeyPatch, reranker: Reranker) -> None:
    """`gr2 rerank` takes the reranker that is open already."""

    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[Reranker]:
        yield reranker

    monkeypatch.setattr(rerank, "open_reranker", opened)
