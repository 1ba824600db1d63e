"""gr2 rerank and gr2 serve pass on what they are given, with paths as seen from the project."""

import os
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


def test_rerank_takes_the_options_of_serve(called: list[list[str]]) -> None:
    cli.main(["rerank", "in.jsonl", "--mode", "adaptive", "--margin", "0.2", "--one-pass-model", "quick"])
    assert called[0][3:] == ["--one-pass-model=sub/quick", "--mode=adaptive", "--margin=0.2", "--", "sub/in.jsonl"]


def test_export(called: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cli.main(["export", "cross-encoder", "encoder", "--model", "../data/sft/model"]) == 3
    monkeypatch.chdir(tmp_path / "sub")
    assert cli.main(["export", "prompts", "in.trec", "--topics", "topics.tsv", "--output", "out.jsonl"]) == 3
    export = [sys.executable, "-m", "stages.serve.export"]
    assert called == [
        [*export, "--model=data/sft/model", "--", "cross-encoder", "sub/encoder"],
        [*export, "--output=sub/out.jsonl", "--topics=sub/topics.tsv", "--", "prompts", "sub/in.trec"],
    ]


@pytest.mark.parametrize(
    ("model", "passed"), [("../data/sft/model", f"{Path('data/sft/model')}"), ("reranker@v0.0.2", "reranker@v0.0.2"), ("here", "sub/here")]
)
def test_serve_takes_the_place_of_gr2_so_that_signals_reach_it(called, monkeypatch, tmp_path, model: str, passed: str) -> None:
    (tmp_path / "sub/here").mkdir()

    def become(program: str, command: list[str]) -> None:
        called.append([program, *command])
        raise SystemExit(3)

    monkeypatch.setattr(os, "execv", become)
    with pytest.raises(SystemExit):
        cli.main(["serve", "--port", "0", "--model", model])
    versions = "--versions=tasks.promotion.versions_to_serve"
    assert called == [[sys.executable, sys.executable, "-m", "stages.serve.http.server", f"--model={passed}", versions, "--port=0"]]
