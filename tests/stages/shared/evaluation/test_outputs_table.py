"""What is written of an evaluation is what the report reads of it; and older tables, which held greedy answers only, still compare."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from stages.evaluate.evaluate import answer_counts, outputs_table
from stages.evaluate.models import Answers
from stages.evaluate.shuffled_slates import shuffles
from stages.report import answers as recorded
from stages.shared.core.errors import StageError
from stages.shared.evaluation.outputs_table import SCHEMA, read_answers, read_greedy, write_outputs
from stages.shared.evaluation.rankers import MODELS
from stages.shared.evaluation.test_set import TestSet
from stages.shared.slates.reranking.rankings import Rankings, from_scores, incoming
from stages.shared.slates.slate import Catalog
from tests.stages.shared.slates.test_compact import SLATE

RNG = np.random.default_rng(3)
N, K = 5, 3
SLATES = [replace(SLATE, slate=10 + i, user=i // 2, target_rank=i % K) for i in range(N)]
TEST_SET = TestSet(
    slates=SLATES,
    users=np.array([slate.user for slate in SLATES]),
    positions=np.arange(N),
    targets=np.array([slate.target_rank for slate in SLATES]),
    candidates_NK=np.array([slate.candidates for slate in SLATES]),
    missed={},
    counts=np.ones(9, dtype=int),
    catalog=Catalog([], [], []),
    interactions=pl.DataFrame(),
)


def drawn(n: int) -> Rankings:
    """Of a model: the second answer is invalid."""
    rankings = from_scores(RNG.normal(size=(n, K)))
    rankings.orders[1] = range(K)
    return Rankings(rankings.orders, ["", "outside", *[""] * (n - 2)], [f"text {i}" for i in range(n)], list(range(n)), [7] * n)


@pytest.fixture
def answers() -> Answers:
    return Answers(
        repeat_rows=[0, 2, 4],
        greedy={name: drawn(N) for name in MODELS},
        free={name: drawn(2) for name in MODELS},
        repeated={name: [drawn(3), drawn(3)] for name in ("sft", "rl")},
        shuffled=(shuffles(SLATES[:4], seed=1), drawn(4)),
    )


def same(one: Rankings, other: Rankings) -> bool:
    return (one.orders == other.orders).all() and all(
        getattr(one, name) == getattr(other, name) for name in ("faults", "texts", "reasoning_tokens", "answer_tokens")
    )


def test_the_report_reads_what_was_answered(answers, tmp_path, monkeypatch):
    path = tmp_path / "outputs.parquet"
    ranked = {"incoming": incoming(SLATES)}
    write_outputs(outputs_table(TEST_SET, ranked, answers), path)
    monkeypatch.setattr(recorded, "read_answers", lambda: read_answers(path))
    found = recorded.read_recorded_answers(TEST_SET, MODELS)
    assert list(found.greedy) == ["incoming", *MODELS] and same(found.greedy["incoming"], ranked["incoming"])
    assert all(same(found.greedy[name], answers.greedy[name]) and same(found.free[name], answers.free[name]) for name in MODELS)
    assert found.repeat_rows == answers.repeat_rows and list(found.repeated) == ["sft", "rl"]
    assert all(same(one, other) for name in ("sft", "rl") for one, other in zip(found.repeated[name], answers.repeated[name], strict=True))
    shown, rankings = answers.shuffled
    assert found.bias is not None and found.bias.shown[1].tolist() == shown.tolist()
    assert found.bias.answered[1].tolist() == np.take_along_axis(shown, rankings.orders, axis=1).tolist()
    assert found.bias.answered[1][1].tolist() == shown[1].tolist(), "an invalid answer leaves the slate as it was shown"
    assert found.bias.answered[0].tolist() == answers.greedy["rl"].orders[:4].tolist()
    assert found.bias.valid.tolist() == [[True, False, True, True]] * 2
    assert found.bias.target_rank.tolist() == TEST_SET.targets[:4].tolist()


def test_new_ranks_are_those_of_the_target(answers):
    table = outputs_table(TEST_SET, {}, answers)
    for row in table.iter_rows(named=True):
        assert row["order"][row["new_rank"]] == row["target_rank"]
    counts = answer_counts(table)
    assert counts["repeated"]["sft"].answers == 6 and counts["repeated"]["sft"].valid == 4 and set(counts["shuffled"]) == {"rl"}


def test_answers_to_other_slates_are_refused(answers, tmp_path, monkeypatch):
    path = tmp_path / "outputs.parquet"
    write_outputs(outputs_table(TEST_SET, {}, answers), path)
    monkeypatch.setattr(recorded, "read_answers", lambda: read_answers(path))
    with pytest.raises(StageError, match="'sft' answered other slates"):
        recorded.read_recorded_answers(replace(TEST_SET, slates=SLATES[:4]), MODELS)


def test_tools_read_the_greedy_answers_alone_and_older_tables_whole(answers, tmp_path):
    columns = ["slate", "model", "new_rank"]
    table = outputs_table(TEST_SET, {}, answers)
    new, old, damaged = (tmp_path / f"{name}.parquet" for name in ("new", "old", "damaged"))
    write_outputs(table, new)
    greedy = table.filter(pl.col("kind") == "greedy")
    greedy.select(list(SCHEMA)[:9]).write_parquet(old)  # as it was before the other answers were recorded too
    assert read_greedy(new, columns).equals(read_greedy(old, columns)) and read_greedy(new, columns).columns == columns
    with pytest.raises(StageError, match=r"old\.parquet: without the column 'kind'"):
        read_greedy(old, [*columns, "kind"])
    damaged.write_bytes(b"PAR1")
    with pytest.raises(StageError, match="not a readable Parquet file"):
        read_greedy(damaged, columns)


def test_answers_to_slates_of_unlike_length_come_back_as_they_were(tmp_path, monkeypatch):
    """In the table an order is as long as its slate."""
    sizes = [3, 2, 3, 2, 2]
    slates = [
        replace(slate, candidates=slate.candidates[:size], bins=slate.bins[:size], target_rank=slate.target_rank % size)
        for slate, size in zip(SLATES, sizes, strict=True)
    ]
    scores = np.where(np.arange(K) < np.array(sizes)[:, None], RNG.normal(size=(N, K)), -np.inf)
    test_set = replace(TEST_SET, slates=slates, targets=np.array([slate.target_rank for slate in slates]))
    shown = shuffles(slates[1:3], seed=1)
    answers = Answers([3], {name: from_scores(scores) for name in MODELS}, shuffled=(shuffles(slates[:2], 1), from_scores(scores[:2])))
    answers.repeated = {"rl": [from_scores(scores[3:4, :2])]}
    assert shown.shape == (2, K) and shown[0].tolist() == [1, 0, 2]
    table, path = outputs_table(test_set, {}, answers), tmp_path / "outputs.parquet"
    assert table.filter(pl.col("kind") == "greedy")["order"].list.len().to_list() == sizes * len(MODELS)
    write_outputs(table, path)
    monkeypatch.setattr(recorded, "read_answers", lambda: read_answers(path))
    found = recorded.read_recorded_answers(test_set, MODELS)
    assert all(same(found.greedy[name], answers.greedy[name]) for name in MODELS)
    assert found.repeated["rl"][0].orders.shape == (1, K) and found.bias is not None and found.bias.sizes.tolist() == sizes[:2]
