"""Relevances in place of the one target: what they pay, what is refused, and runs of the stage."""

import csv
from itertools import permutations

import polars as pl
import pytest

from stages.rl.params import TARGETS, RlParams
from stages.rl.rewards.group import rank_reward
from stages.rl.rewards.orders import is_right, promotion, rises
from stages.rl.rewards.relevances import RELEVANCES, with_relevances
from stages.rl.rl import rl
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import stage_outputs
from stages.shared.core.schemas import write_table
from tests.stages.rl.test_stage import contents, project  # noqa: F401 (a fixture)
from tests.support.small_project import K, make_slates

CHANCES = (0.1, 0.5, 0.05, 0.35)
TAKEN = make_slates()[0].target_rank
ORDERS = list(permutations(range(K)))
# Under the constraint every answer of a model that knows nothing is a permutation, so its rewards vary.
SMALL = {"threads": 1, "steps": 2, "prompts": 3, "group": 4, "micro_prompts": 3, "max_tokens": 96, "max_refills": 0, "batch_size": 16}
SMALL |= {"constrained": True, "consistent": False, "temperature": 2.0, "lr": 1e-3}


def table(path, rows) -> str:
    write_table(pl.DataFrame(rows, schema=RELEVANCES, orient="row"), path, RELEVANCES)
    return str(path)


def valued(path, chances=CHANCES):
    slate = make_slates()[0]
    return with_relevances([slate], table(path, [(slate.slate, list(chances))]))[0]


def test_the_reward_is_the_mean_over_the_targets_that_might_have_been(tmp_path):
    slate = valued(tmp_path / "table.parquet")
    for order in ORDERS:
        expected = sum(chance * promotion(order, rank) for rank, chance in enumerate(CHANCES))
        assert rank_reward(order, slate.target_rank, RlParams(), slate.grades) == pytest.approx(expected, abs=1e-12)
    # As DCG is linear in gains, the gain in it is that mean, too, but for its scale.
    one = [valued(tmp_path / "one.parquet", [float(rank == target) or 1e-300 for rank in range(K)]) for target in range(K)]
    params = RlParams(rank_reward="ndcg")
    means = [sum(p * rank_reward(order, 0, params, own.grades) for p, own in zip(CHANCES, one, strict=True)) for order in ORDERS]
    gains = [rank_reward(order, 0, params, slate.grades) for order in ORDERS]
    scale = max(means) / max(gains)
    assert [gain * scale for gain in gains] == pytest.approx(means, abs=1e-9)


def test_the_best_order_is_that_of_the_relevances(tmp_path):
    slate = valued(tmp_path / "table.parquet")
    best = max(ORDERS, key=lambda order: rank_reward(order, slate.target_rank, RlParams(), slate.grades))
    assert best == (1, 3, 0, 2) and is_right(best, 2, slate.grades) and rises(best, 2, slate.grades)
    assert not rises((0, 1, 2, 3), 2, slate.grades), "a copy earns no format, wherever the target stood"


def test_without_a_table_slates_are_as_they_were():
    slates = make_slates()
    assert with_relevances(slates, TARGETS) == slates


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([(7, [0.5] * K)], "no row of slate 0; rl.relevances needs one of every training slate"),
        ([(0, [0.5] * 3)], "slate 0: 3 relevances for 4 candidates"),
        ([(0, [0.5, None, 0.5, 0.5])], "slate 0: a relevance is no finite number of 0 or more"),
        ([(0, [0.5, 0.5, -0.5, 0.5])], "slate 0: a relevance is no finite number of 0 or more"),
        ([(0, [0.5, 0.5, float("nan"), 0.5])], "slate 0: a relevance is no finite number of 0 or more"),
        (
            [(0, [float(rank != make_slates()[0].target_rank) for rank in range(K)])],
            "slate 0: the target, which was taken, has relevance 0",
        ),
    ],
)
def test_what_is_wrong_with_a_table_is_named(tmp_path, rows, problem):
    path = table(tmp_path / "table.parquet", rows)
    with pytest.raises(StageError, match=rf"table\.parquet: {problem}"):
        with_relevances(make_slates()[:1], path)


def run(folder, **more) -> dict[str, bytes]:
    with stage_outputs("rl") as outputs:
        rl(RlParams(**SMALL, **more), outputs)
    return contents(folder / "data/rl")


def test_a_run_on_relevances(project):  # noqa: F811
    """That of the target alone is the run without a table, to the byte; others teach something else, and are no leak."""
    slates = make_slates()
    alone = table(project / "alone.parquet", [(s.slate, [float(rank == s.target_rank) for rank in range(K)]) for s in slates])
    plain = run(project)
    assert run(project, relevances=alone) == plain
    other = table(project / "other.parquet", [(s.slate, [0.1 * (1 + rank) for rank in range(K)]) for s in slates])
    changed = run(project, relevances=other)
    assert changed["model/model.safetensors"] != plain["model/model.safetensors"]
    with (project / "data/rl/steps.csv").open() as file:
        first = next(csv.DictReader(file))
    # 0.1, 0.2, 0.3, 0.4 along the initial ranking: any order but a copy raises something above what it stood behind.
    assert float(first["rank_reward"]) > 0
