"""gr2 rerank on TREC runs and rank_llm's requests: what is read, what other tools then read, and lines that are none."""

import json

import numpy as np
import pytest

from stages.serve.formats import trec
from stages.serve.rerank import rerank_file
from stages.serve.reranker import MODEL
from stages.shared.core.errors import StageError

CANDIDATES = [str(item) for item in range(5)]


pytestmark = pytest.mark.usefixtures("opened_once")


def run(source, output, topics=None):
    assert sum(rerank_file(source, output, MODEL, "reasoning", "source", 4, topics).values()) > 0
    return output.read_text(encoding="utf-8")


def trec_eval_order(text):
    """qid -> documents as trec_eval orders them: by the score as a 32-bit float, equals by docid from Z to A."""
    found = {}
    for line in text.splitlines():
        qid, q0, docid, _, score, _ = line.split(" ")
        assert q0 == "Q0"
        found.setdefault(qid, []).append((np.float32(score), docid))
    assert all(len({docid for _, docid in docs}) == len(docs) for docs in found.values()), "trec_eval refuses a document that comes twice"
    return {qid: [docid for _, docid in sorted(docs, reverse=True)] for qid, docs in found.items()}


@pytest.fixture
def theirs(tmp_path):
    """Requests of rank_llm: the users u1 and u2, by text and by history."""
    docs = [{"docid": docid, "score": 9.5 - float(docid), "doc": {"contents": f"text {docid}", "ünicode": 1}} for docid in CANDIDATES]
    rows = [
        {"query": {"text": "user:u1", "qid": "q1"}, "candidates": docs},
        {"query": {"text": "for people", "qid": 2, "user_id": "u2"}, "candidates": docs[::-1]},
        {"query": {"text": "user:nobody", "qid": "q3"}, "candidates": docs},
    ]
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path, rows


def test_rank_llm_gets_its_requests_back_in_the_new_order(theirs, tmp_path):
    path, rows = theirs
    answers = [json.loads(line) for line in run(path, tmp_path / "o.jsonl").splitlines()]
    results = [json.loads(line) for line in run(path, tmp_path / "o.rank_llm.jsonl").splitlines()]
    for row, answer, result in zip(rows, answers, results, strict=True):
        assert result["query"] == row["query"] and str(row["query"]["qid"]) == answer["id"]
        assert [one["docid"] for one in result["candidates"]] == answer["order"]
        assert [one["score"] for one in result["candidates"]] == answer["scores"]
        assert {one["docid"]: one["doc"] for one in result["candidates"]} == {one["docid"]: one["doc"] for one in row["candidates"]}
    assert [one["docid"] for one in results[2]["candidates"]] == CANDIDATES and answers[2]["fallback"] == "unknown_user"
    (tmp_path / "again.jsonl").write_text("".join(json.dumps(result) + "\n" for result in results))  # results are requests
    again = [json.loads(line) for line in run(tmp_path / "again.jsonl", tmp_path / "again.rank_llm.jsonl").splitlines()]
    assert [[one["docid"] for one in row["candidates"]] for row in again[2:]] == [CANDIDATES]


def test_trec_runs_in_and_out_say_what_requests_say(theirs, tmp_path):
    path, rows = theirs
    answers = {row["id"]: row["order"] for row in map(json.loads, run(path, tmp_path / "o.jsonl").splitlines())}
    assert trec_eval_order(run(path, tmp_path / "o.trec")) == answers
    lines = [
        f"{row['query']['qid']}\tQ0 {one['docid']} {place} {9 - place} bm25\n"
        for row in rows
        for place, one in reversed(list(enumerate(row["candidates"], 1)))
    ]
    (tmp_path / "in.trec").write_text("".join(lines) + "\n")
    (tmp_path / "topics.tsv").write_text('q1\tuser:u1\n2\t{"user_id": "u2"}\nq3\tuser:nobody\n')
    assert trec_eval_order(run(tmp_path / "in.trec", tmp_path / "p.trec", tmp_path / "topics.tsv")) == answers, "by rank, not by line"
    results = run(tmp_path / "in.trec", tmp_path / "p.rank_llm.jsonl", tmp_path / "topics.tsv").splitlines()
    assert json.loads(results[1])["query"] == {"text": '{"user_id": "u2"}', "qid": "2"}
    (tmp_path / "users.trec").write_text("".join(line.replace("q1", "u1", 1) for line in lines if line.startswith("q1")))
    assert trec_eval_order(run(tmp_path / "users.trec", tmp_path / "q.trec")) == {"u1": answers["q1"]}, "without topics, a qid is a user"


@pytest.mark.parametrize(
    "scores",
    [(0.9, 0.5, 0.1), (0.4, 0.4, 0.2), (1e-9, 5e-10, 0.0), (0.1, 0.1 - 1e-12, 0.0), (0.5, 0.0, 0.0)],
)
def test_the_order_survives_trec_eval_whatever_the_scores(scores):
    names = ["a", "b b", "c"]
    text = "".join(trec.run_lines("q 1", names, scores))
    assert trec_eval_order(text) == {"q_1": ["a", "b_b", "c"]}
    if len(set(np.float32(scores))) == 3:
        assert [float(line.split()[4]) for line in text.splitlines()] == list(scores)


def test_of_a_document_that_comes_twice_the_better_place_is_written():
    text = "".join(trec.run_lines("q", ["a", "b", "a", "c"], [4.0, 3.0, 2.0, 1.0]))
    assert [line.split()[2:5] for line in text.splitlines()] == [["a", "1", "4.0"], ["b", "2", "3.0"], ["c", "3", "1.0"]]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.trec", "q Q0 1 1 0.5 x\n\nq Q0 2 2 x\n", r"a\.trec: line 3: 5 columns; a TREC run has 6"),
        ("a.trec", "q Q0 1 first 0.5 x\n", r"a\.trec: line 1: rank 'first'"),
        ("a.trec", "q Q0 1 1 nan x\n", "line 1: .* score 'nan'"),
        ("a.trec", "q Q0 1 1 2 x\np Q0 1 1 2 x\nq Q0 2 2 1 x\n", "the query q do not stand together"),
        ("a.trec", "q Q0 1 1 2 x\nq Q0 2 1 1 x\n", "query q has two documents of one rank"),
        ("a.jsonl", '\n{"query": {"text": "user:u1"}, "candidates": [{"docid": "1"}]}\n', r"a\.jsonl: line 2: the query has no `qid`"),
        ("a.jsonl", '{"query": {"text": "user:u1", "qid": 1}, "candidates": [{"id": "1"}]}\n', "line 1: candidate 0 has no `docid`"),
        ("a.jsonl", '{"query": {"text": "films", "qid": 1}, "candidates": [{"docid": "1"}]}\n', "line 1: the query cannot be read; send"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(StageError, match=words):
        run(tmp_path / name, tmp_path / "o.trec")
    assert not (tmp_path / "o.trec").exists()


def test_topics_that_do_not_fit_are_named(tmp_path):
    (tmp_path / "a.trec").write_text("q Q0 1 1 2 x\n")
    for text, words in [
        ("q user:u1\n", "line 1: no tab"),
        ("p\tuser:u1\n", "no line for the query q"),
        ("q\tx\nq\ty\n", "line 2: the same"),
    ]:
        (tmp_path / "t.tsv").write_text(text)
        with pytest.raises(StageError, match=words):
            run(tmp_path / "a.trec", tmp_path / "o.jsonl", tmp_path / "t.tsv")
    with pytest.raises(StageError, match=r"gone\.tsv: no such file"):
        run(tmp_path / "a.trec", tmp_path / "o.jsonl", tmp_path / "gone.tsv")
