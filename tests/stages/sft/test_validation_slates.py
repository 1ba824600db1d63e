"""The slates of validation: whose they are, what an answer is worth, and a whole run that is decided by them."""

from dataclasses import replace

import numpy as np
import pytest

from stages.sft.params import SftParams
from stages.sft.rows import held_out_users
from stages.sft.validation_slates import choose_slates, ranking_sums
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json
from stages.shared.slates.answers import Answer
from stages.shared.training.validation import RankingSums
from tests.stages.sft.test_sft import SLATES, SMALL, TRACES, project, run, small  # noqa: F401

RANKED = {"steps": 4, "log_every": 2, "validate_steps": 2, "validate_slates": 5}


def test_slates_are_of_the_held_out_users_and_shown_in_random_orders():
    params = small(**RANKED, validate_share=0.2)
    users = held_out_users(TRACES, params)
    chosen = choose_slates(SLATES, users, params, window=0)
    by_id = {slate.slate: slate for slate in SLATES}
    assert len(chosen) == 5 and {slate.user for slate in chosen} <= set(users)
    for slate in chosen:
        given = by_id[slate.slate]
        order = [given.candidates.index(item) for item in slate.candidates]
        assert sorted(order) == list(range(len(order))) and slate.candidates[slate.target_rank] == given.candidates[given.target_rank]
        assert slate.bins == [given.bins[rank] for rank in order]
    assert any(slate.candidates != by_id[slate.slate].candidates for slate in chosen)
    assert choose_slates(SLATES, users, params, 0) == chosen != choose_slates(SLATES, users, small(**RANKED, seed=8), 0)
    assert all(len(slate.candidates) == 2 for slate in choose_slates(SLATES, users, params, window=2))
    with pytest.raises(StageError, match=r"sft\.validate_slates: the held-out users have no training slate"):
        choose_slates(SLATES, [-1], params, 0)


def test_an_invalid_answer_counts_as_the_order_shown():
    slates = [replace(SLATES[0], target_rank=rank) for rank in (2, 0, 3)]
    answers = [Answer((2, 0, 1, 3), ""), Answer(None, "missing"), Answer((0, 1, 2, 3), "")]
    # By hand: the target first, first, fourth.
    assert ranking_sums(answers, slates) == RankingSums(pytest.approx(1 + 1 + 1 / np.log2(5)), 2, 3)


def test_a_run_is_decided_by_its_rankings(project, monkeypatch):  # noqa: F811
    ndcg = iter([0.5, 0.25, 0.5, 0.25])
    monkeypatch.setattr(
        "stages.sft.validation_slates.ranking_sums", lambda answers, slates: RankingSums(next(ndcg) * len(slates), 1, len(slates))
    )
    by_ndcg, by_loss = (run(project, small(**RANKED, best_by=by)) for by in ("ndcg", "loss"))
    assert by_ndcg["model/model.safetensors"] != by_loss["model/model.safetensors"]
    assert run(project, small(steps=4, log_every=2, validate_steps=2))["model/model.safetensors"] == by_loss["model/model.safetensors"]


def test_the_figures_of_a_run(project):  # noqa: F811
    run(project, small(**RANKED))
    span = read_json(project / "data/sft/metrics.json")["validation"]
    assert span["ranking"]["slates"] == 5 and span["ranking"]["decides"] is False
    # A tiny random model answers nothing: every answer counts as the order shown.
    in_time = sorted(SLATES, key=lambda slate: (slate.timestamp, slate.slate))  # as load_slates has them
    chosen = choose_slates(in_time, held_out_users(TRACES, small(**RANKED)), small(**RANKED), 0)
    shown = np.mean([1 / np.log2(slate.target_rank + 2) for slate in chosen])
    assert span["ranking"]["last"] == {"ndcg@5": pytest.approx(shown), "valid": 0.0}


@pytest.mark.parametrize("more", [{"validate_slates": 4}, {"best_by": "ndcg"}, {"best_by": "ndcg", "validate_steps": 5}])
def test_what_cannot_be_validated_is_refused(more):
    with pytest.raises(ValueError, match=r"validate_slates: slates are answered|best_by: ndcg needs answers"):
        SftParams(**(SMALL.model_dump() | more))
