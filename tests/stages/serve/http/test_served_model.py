import json
import subprocess

import pytest

from stages.serve.http.served_model import find_model
from stages.shared.core.errors import StageError

ADAPTIVE = ("adaptive", None, 0.2)


def test_a_folder_is_of_the_run_in_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("model", "data/rl/model"):
        (tmp_path / name).mkdir(parents=True)
        found = find_model(name, *ADAPTIVE, versions="no.module")
        assert (found.name, found.asked, found.model, found.run, found.mode, found.margin) == (name, name, name, ".", "adaptive", 0.2)


@pytest.mark.parametrize(
    ("name", "one_pass", "words"),
    [
        ("some/where", None, "some/where: no such folder; name one"),
        ("data/rl/model", None, "gr2 run rl"),
        (".", "gone", "gone: no such folder"),
    ],
)
def test_a_folder_that_is_not_there_is_said_before_an_engine_is_started(tmp_path, monkeypatch, name, one_pass, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StageError, match=words):
        find_model(name, "adaptive", one_pass and tmp_path.joinpath(one_pass), 0.2, versions="no.module")


def test_a_version_comes_with_its_run(monkeypatch):
    said = {"version": "reranker@v0.0.2", "run": "/there", "model": "data/rl/model"}
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, "a note\n" + json.dumps(said) + "\n", "")
    )
    found = find_model("reranker", *ADAPTIVE, versions="some.module")
    assert (found.name, found.asked, found.model, found.run) == ("reranker@v0.0.2", "reranker", "data/rl/model", "/there")


def test_what_brings_no_version_is_said_in_its_own_words():
    with pytest.raises(StageError, match=r"v0.0.2: no folder, and no version: .*No module named .*nowhere"):
        find_model("v0.0.2", *ADAPTIVE, versions="nowhere")
