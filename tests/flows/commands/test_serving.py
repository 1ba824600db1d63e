"""gr2 rerank and gr2 serve pass on what they are given, with paths as seen from the project."""

import subprocess
import sys
from pathlib import Path

import pytest

from flows import cli


@pytest.fixture
def called(monkeypatch, tmp_path) -> list[list[str]]:
    """The commands that gr2 starts, called in the folder `sub` of a project."""
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    commands: list[list[str]] = []

    def run(command: list[str], check: bool) -> "subprocess.CompletedProcess[str]":
        commands.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_rerank(called: list[list[str]]) -> None:
    assert cli.main(["rerank", "in.jsonl", "--output", "out.trec", "--mode", "one-pass"]) == 3
    assert called == [[sys.executable, "-m", "stages.serve.rerank", "--output=sub/out.trec", "--mode=one-pass", "--", "sub/in.jsonl"]]


def test_serve(called: list[list[str]]) -> None:
    assert cli.main(["serve", "--port", "0", "--model", "../data/sft/model"]) == 3
    assert called == [[sys.executable, "-m", "stages.serve.http.server", f"--model={Path('data/sft/model')}", "--port=0"]]
