"""gr2 rerank on a small finished run: forms of files, killed calls, and rows that cannot be read."""

import json
from dataclasses import replace

import polars as pl
import pytest

from stages.serve.requests import RankRequest
from stages.serve.rerank import rerank_file
from stages.serve.reranker import MODEL, open_reranker
from stages.shared.core.errors import StageError
from tests.support.retrieve_project import own_items
from tests.support.tiny_models import tiny_folder

ROWS = [{"id": f"q{user}", "user_id": f"u{user}", "candidates": [str(item) for item in range(user, user + 5)]} for user in range(11)]


pytestmark = pytest.mark.usefixtures("opened_once")


def write(path, rows=ROWS):
    path.write_text("".join(json.dumps(row) + "\n\n" for row in rows), encoding="utf-8")
    return path


def run(path, output, ids="source", batch=4):
    return rerank_file(path, output, MODEL, "reasoning", ids, batch)


def test_every_form_of_output_says_the_same(tmp_path):
    source = write(tmp_path / "in.jsonl")
    for suffix in ("jsonl", "parquet", "trec"):
        assert run(source, tmp_path / f"out.{suffix}") == {"": 11}
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines == pl.read_parquet(tmp_path / "out.parquet").to_dicts()
    assert [line["id"] for line in lines] == [row["id"] for row in ROWS]
    for line, row in zip(lines, ROWS, strict=True):
        assert line["order"] == [row["candidates"][place] for place in line["index"]] and sorted(line["index"]) == [0, 1, 2, 3, 4]
    trec = [line.split() for line in (tmp_path / "out.trec").read_text().splitlines()]
    assert [(qid, docid, int(rank)) for qid, _, docid, rank, *_ in trec] == [
        (line["id"], name, rank) for line in lines for rank, name in enumerate(line["order"], 1)
    ]
    assert {line.name for line in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl", "out.parquet", "out.trec"}


def test_rows_of_rank_llm_and_of_the_pipeline(tmp_path):
    history = own_items(3)
    theirs = {"query": {"text": "user:u3", "qid": 7}, "candidates": [{"docid": str(i), "score": 1.0, "doc": {}} for i in range(5)]}
    run(write(tmp_path / "theirs.jsonl", [theirs]), tmp_path / "one.jsonl")
    pl.DataFrame({"slate": [7], "history": [history], "candidates": [list(range(5))], "more": [""]}).write_parquet(tmp_path / "our.parquet")
    run(tmp_path / "our.parquet", tmp_path / "two.jsonl", ids="number")
    one, two = ((tmp_path / name).read_text() for name in ("one.jsonl", "two.jsonl"))
    assert one == two and json.loads(two)["id"] == "7"


def test_a_killed_call_is_gone_on_from_and_ends_with_the_same_bytes(tmp_path, reranker, monkeypatch):
    source, output = write(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    run(source, tmp_path / "whole.jsonl")
    real, calls = type(reranker).rank, []

    def killed(self, requests):
        calls.append(len(requests))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, requests)

    monkeypatch.setattr(type(reranker), "rank", killed)
    with pytest.raises(KeyboardInterrupt):
        run(source, output)
    partial = tmp_path / ".out.jsonl.partial.jsonl"
    assert not output.exists() and len(partial.read_bytes().splitlines()) == 8
    partial.write_bytes(partial.read_bytes()[:-20])  # a kill in the middle of a line
    assert run(source, output) == {"": 11}
    assert calls == [4, 4, 3, 4, 3], "the whole batch of the line that was cut is asked again, and no other"
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_mode_adaptive_goes_on_as_it_began_and_ranks_as_the_server_does(tmp_path, finished_run, monkeypatch):
    """Every row is in one pass at margin 0 and reasoned about at a margin that none has; between the two it is what the reranker says."""
    source, output = write(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    monkeypatch.undo()  # open what is asked for
    with open_reranker(mode="adaptive") as adaptive:
        requests = [RankRequest(own_items(user), list(range(user, user + 5))) for user in range(11)]
        quick = replace(adaptive, margin=0.0).rank(requests)
        margins = sorted(result.scores[0] - result.scores[1] for result in quick)
        between = (margins[4] + margins[5]) / 2
        expected = {margin: replace(adaptive, margin=margin).rank(requests) for margin in (0.0, between, 1.1)}
    for margin, results in expected.items():
        assert rerank_file(source, output, MODEL, "adaptive", "source", 11, margin=margin) == {"": 11}
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        assert [(tuple(line["index"]), line["way"]) for line in lines] == [(result.order, result.way) for result in results]
    assert {margin: [one.way for one in results].count("one-pass") for margin, results in expected.items()} == {0.0: 11, between: 6, 1.1: 0}
    other = tmp_path / "one-pass"
    tiny_folder(other, seed=1)
    rerank_file(source, output, MODEL, "adaptive", "source", 11, None, other, 0.0)
    assert [json.loads(line)["index"] for line in output.read_text().splitlines()] != [list(result.order) for result in expected[0.0]]


def test_another_request_begins_anew(tmp_path, reranker, monkeypatch):
    source, output = write(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    partial, state = tmp_path / ".out.jsonl.partial.jsonl", tmp_path / ".out.jsonl.partial.state"
    partial.write_text('{"fallback": "of another file"}\n' * 4)
    state.write_text("something else")
    assert run(source, output) == {"": 11} and not partial.exists() and not state.exists()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"user_id": "u1"}, "in.jsonl: line 1: `candidates` is no list"),
        ({"candidates": ["1"]}, "in.jsonl: line 1: the query says neither who"),
        ({"user_id": "u1", "candidates": []}, "nothing to rank"),
        ({"user_id": "u1", "candidates": ["1", "2"], "scores": [1]}, "list of 2 numbers"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path, row, words):
    with pytest.raises(StageError, match=words):
        run(write(tmp_path / "in.jsonl", [row]), tmp_path / "out.jsonl")


def test_files_that_cannot_be_read_or_written_are_named(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"user_id": "u1", "candidates": ["1"]}\n{"user_id"\n')
    (tmp_path / "bad.parquet").write_text("no")
    (tmp_path / "empty.jsonl").write_text("\n")
    for name, output, words in [
        ("bad.jsonl", "o.jsonl", "bad.jsonl: line 2: no JSON"),
        ("bad.parquet", "o.jsonl", "not a readable Parquet"),
        ("empty.jsonl", "o.jsonl", "no rows"),
        ("gone.jsonl", "o.jsonl", "no such file"),
        ("bad.jsonl", "o.csv", "End its name"),
    ]:
        with pytest.raises(StageError, match=words):
            run(tmp_path / name, tmp_path / output)
