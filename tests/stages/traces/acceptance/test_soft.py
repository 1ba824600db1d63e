from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from stages.shared.core.outputs import read_json, stage_outputs
from stages.shared.slates.traces import read_traces
from stages.traces.acceptance.checks import TraceChecks
from stages.traces.acceptance.kept import Kept
from stages.traces.acceptance.soft import accepted, reward, sample_softly
from stages.traces.params import TracesParams
from stages.traces.teachers.random_order import RandomTeacher
from stages.traces.teachers.teacher import Proposal
from stages.traces.traces import traces
from tests.support.traces_data import LAYOUT, make_slates, many_slates, scored_slates, write_project

REWARDS = [1.0, 0.63, 0.5, 0.39]


def test_one_of_two_is_accepted_as_often_as_its_weight_says():
    """Two proposals, one kept: in the first pass the better one is taken if it comes first, or if the other fails before it."""
    beta, draws, rng = 0.5, 20_000, np.random.default_rng(1)
    other = np.exp((0.63 - 1.0) / beta)
    for rewards, expected in (([1.0, 0.63], [1.0, 0.0]), ([0.63, 1.0], [other, 1.0 - other])):
        seen = Counter(accepted(rewards, 1, beta, rng)[0] for _ in range(draws))
        counts = [seen[0], seen[1]]
        assert counts == [draws, 0] if expected[1] == 0 else chisquare(counts, [draws * share for share in expected]).pvalue > 0.01


def reference(rewards, count, beta, rng):
    """RSO's algorithm 1 as its authors print it."""
    candidates = dict(enumerate(rewards))
    found = []
    while len(found) < count and candidates:
        max_reward = max(candidates.values())
        to_remove = []
        for place, value in candidates.items():
            if rng.random() >= np.exp((value - max_reward) / beta):
                continue
            found.append(place)
            to_remove.append(place)
            if len(found) == count:
                break
        for place in to_remove:
            candidates.pop(place)
    return sorted(found)


@pytest.mark.parametrize("beta", [0.05, 0.2, 1.0])
def test_the_same_as_the_papers_algorithm(beta):
    for seed in range(200):
        rewards = np.random.default_rng(seed).choice(REWARDS, size=8).tolist()
        ours, theirs = (kind(rewards, 3, beta, np.random.default_rng(seed)) for kind in (accepted, reference))
        assert ours == theirs and len(ours) == 3


def test_a_small_beta_takes_the_best_and_a_large_one_the_first():
    rng = np.random.default_rng(0)
    assert accepted([0.5, 1.0, 0.39, 0.63], 2, 1e-3, rng) == [1, 3]
    assert accepted([0.5, 1.0, 0.39, 0.63], 2, 1e6, rng) == [0, 1]
    assert accepted([0.5], 4, 0.2, rng) == [0] and accepted([], 4, 0.2, rng) == []


def test_reward_is_ndcg_of_the_target():
    [one] = many_slates(1)
    one = replace(one, slate=replace(one.slate, target_rank=4))
    for place, expected in ((0, 1.0), (1, 1 / np.log2(3)), (9, 1 / np.log2(11))):
        others = [rank for rank in range(10) if rank != 4]
        order = (*others[:place], 4, *others[place:])
        assert reward(Kept(one, Proposal("", order), 1, tuple(range(10)))) == pytest.approx(expected)


def test_rewards_rise_as_beta_falls_and_luck_is_refused():
    slates = many_slates(60)
    means = {}
    for beta in (0.02, 0.2, 50.0):
        log, figures = sample_softly(RandomTeacher(LAYOUT, 7), TraceChecks(LAYOUT), slates, 6, 2, None, 7, beta, 7)
        assert len(log.kept) == 120 and figures["proposals"] == 360 and log.tried == [60] * 6
        means[beta] = figures["mean_reward_kept"]
        assert [kept.attempt for kept in log.slates[0].kept] == sorted(kept.attempt for kept in log.slates[0].kept)
    assert means[0.02] > means[0.2] > means[50.0] == pytest.approx(figures["mean_reward"], abs=0.05)
    log, _ = sample_softly(RandomTeacher(LAYOUT, 7), TraceChecks(LAYOUT), slates, 6, 6, 0, 7, 50.0, 7)
    assert not any(kept.right for kept in log.kept) and log.total("luck") + len(log.kept) == 360


def test_the_stage_writes_such_traces(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, make_slates())
    scorer = {"rounds": 20, "min_leaf": 10}
    params = {"threads": 1, "time_folds": 3, "temperature": 0.5, "attempts": 3, "keep": 2, "mode": "soft", "scorer": scorer}
    found = []
    for beta in (0.05, 0.05, 5.0):
        with stage_outputs("traces") as outputs:
            traces(TracesParams.model_validate({**params, "beta": beta}), outputs)
        found.append((tmp_path / "data/traces/traces.parquet").read_bytes())
    table, metrics = read_traces(), read_json(tmp_path / "data/traces/metrics.json")
    assert found[0] == found[1] != found[2] and set(table["mode"]) == {"soft"}
    assert any(row["order"][0] != row["target_rank"] for row in table.iter_rows(named=True))
    assert metrics["soft"]["mean_reward_kept"] >= metrics["soft"]["mean_reward"] and len(scored_slates()) == metrics["sampling"]["labelled"]
