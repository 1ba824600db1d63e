from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from stages.traces.acceptance.audit import chance_audit, noise_audit, ranking_metrics, scorer_audit
from stages.traces.acceptance.checks import TraceChecks
from stages.traces.acceptance.rejection import order_shown, sample
from stages.traces.teachers.teacher import Proposal, StatisticalTeacher, levels_of
from tests.support.traces_data import LAYOUT, scored_slates

SCORED = scored_slates()


class BlindTeacher:
    """Guesses an order, seeing nothing."""

    attempts = None

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)

    def propose(self, slates, attempt):
        return [Proposal(f" try{attempt}", tuple(self.rng.permutation(len(one.scores)).tolist())) for one in slates]


class ScriptedTeacher:
    """The n-th try at every slate is the n-th of the script: "right", "wrong", or a fault."""

    attempts = None

    def __init__(self, *script):
        self.script = script

    def propose(self, slates, attempt):
        return [self._one(one, self.script[attempt], attempt) for one in slates]

    def _one(self, one, what, attempt):
        k, target = len(one.scores), one.slate.target_rank
        first = target if what in ("right", "again", "invents") else (target + 1) % k
        order = (first, *(rank for rank in range(k) if rank != first))
        if what in ("right", "wrong", "again", "invents"):
            return Proposal({"again": " same", "invents": " co99"}.get(what, f" try{attempt}"), order)
        return Proposal("", None, what)


def supported(rank_below):
    return [one for one in SCORED if one.noise_free_rank < rank_below]


def run(teacher, slates, attempts=4, keep=1, max_noise_rank=None):
    return sample(teacher, TraceChecks(LAYOUT), slates, attempts, keep, max_noise_rank)


@pytest.mark.parametrize("keep", [1, 2])
def test_accepted_means_the_target_is_first_and_supported(keep):
    teacher = StatisticalTeacher(LAYOUT, 0.8, 7, targeted=False)
    ledger = sample(teacher, TraceChecks(LAYOUT), SCORED, 6, keep, 3)
    assert ledger.kept
    for kept in ledger.kept:
        assert kept.proposal.order[0] == kept.scored.slate.target_rank and kept.scored.noise_free_rank < 3 and 1 <= kept.attempt <= 6
    own = [kept.scored.slate.slate for kept in ledger.kept]
    assert max(own.count(slate) for slate in set(own)) == keep and own == sorted(own)
    by_slate = {slate: [kept.proposal.trace for kept in ledger.kept if kept.scored.slate.slate == slate] for slate in set(own)}
    assert all(len(set(traces)) == len(traces) for traces in by_slate.values())
    assert not ledger.faults  # nothing the statistical teacher says is invented


def test_the_loop_ends_where_it_should():
    one = supported(1)[:1]
    ledger = run(ScriptedTeacher("wrong", "right", "right", "right"), one)
    assert (ledger.tries, ledger.tried, ledger.right, [k.attempt for k in ledger.kept]) == ([2], [1, 1], [0, 1], [2])
    assert [k.attempt for k in run(ScriptedTeacher("right", "wrong", "right", "right"), one, keep=2).kept] == [1, 3]
    ledger = run(ScriptedTeacher("again", "again", "again", "again"), one, keep=2)
    assert len(ledger.kept) == 1 and ledger.total("repeated") == 3
    ledger = run(ScriptedTeacher("malformed", "unfinished", "invents", "wrong"), one)
    assert not ledger.kept and dict(ledger.faults) == {"malformed": 1, "unfinished": 1, "unfounded": 1} and ledger.right == [0, 0, 0, 0]


def test_luck_is_refused_counted_and_not_tried_again():
    unsupported = [one for one in SCORED if one.noise_free_rank >= 2][:5]
    ledger = run(ScriptedTeacher("wrong", "right", "right", "right"), unsupported, max_noise_rank=2)
    assert not ledger.kept and ledger.total("luck") == 5 and ledger.tries == [2] * 5
    assert len(run(ScriptedTeacher("right"), unsupported, attempts=1, max_noise_rank=None).kept) == 5


def test_luck_is_judged_by_the_scorer_that_has_not_seen_the_slate():
    unsupported = [one for one in SCORED if one.unseen_rank >= 2][:5]
    supported_by_memory = [replace(one, scores=np.eye(len(one.scores))[one.slate.target_rank]) for one in unsupported]
    assert all(one.noise_free_rank == 0 for one in supported_by_memory)
    ledger = run(ScriptedTeacher("right"), supported_by_memory, attempts=1, max_noise_rank=2)
    assert not ledger.kept and ledger.total("luck") == 5
    assert chance_audit(ledger, supported_by_memory, 1, 2)["supported_share"] == 0.0


def test_a_teacher_that_repeats_itself_is_asked_once():
    ledger = sample(StatisticalTeacher(LAYOUT, 0.3, 7, targeted=True), TraceChecks(LAYOUT), SCORED[:9], 4, 1, None)
    assert ledger.tried == [9] and len(ledger.kept) == 9


def test_a_blind_teacher_passes_as_often_as_the_audit_says():
    slates = [replace(one, slate=replace(one.slate, slate=copy * 1000 + i)) for copy in range(20) for i, one in enumerate(SCORED)]
    for attempts, max_noise_rank in ((1, None), (3, None), (3, 2)):
        ledger = run(BlindTeacher(), slates, attempts, 1, max_noise_rank)
        audit = chance_audit(ledger, slates, attempts, max_noise_rank)
        chance, spread = audit["chance"]["blind_guess_at_cap_with_rule"], 0.5 / np.sqrt(len(slates))
        assert audit["accepted_share"] == pytest.approx(chance, abs=4 * spread)
        assert abs(audit["chance"]["excess_over_blind_guess_with_rule"]) < 4 * spread
        assert audit["chance"]["first_try"] == pytest.approx(1 / 5, abs=4 * spread)


def test_audit_against_brute_force():
    slates = SCORED[:60]
    ledger = sample(StatisticalTeacher(LAYOUT, 0.8, 7, targeted=False), TraceChecks(LAYOUT), slates, 4, 2, 3)
    audit = chance_audit(ledger, slates, 4, 3)
    own = {one.slate.slate: [k.attempt for k in ledger.kept if k.scored.slate.slate == one.slate.slate] for one in slates}
    assert audit["accepted"] == sum(bool(a) for a in own.values()) and audit["kept_traces"] == len(ledger.kept) > audit["accepted"]
    assert audit["accepted_share"] == audit["accepted"] / 60
    tries = [own[one.slate.slate][0] if own[one.slate.slate] else asked for one, asked in zip(slates, ledger.tries, strict=True)]
    assert audit["chance"]["blind_guess_over_tries_used"] == pytest.approx(sum(1 - 0.8**n for n in tries) / 60)
    assert audit["chance"]["blind_guess_at_cap"] == pytest.approx(1 - 0.8**4)
    assert audit["supported_share"] == sum(one.noise_free_rank < 3 for one in slates) / 60
    assert audit["chance"]["copying_incoming"] == sum(one.slate.target_rank == 0 for one in slates) / 60
    assert audit["by_try"][0]["tried"] == 60 and sum(row["tried"] for row in audit["by_try"]) == sum(ledger.tries)
    # every right proposal was kept, refused as luck, or a repetition
    assert sum(row["right"] for row in audit["by_try"]) == len(ledger.kept) + ledger.total("luck") + ledger.total("repeated")


def test_where_several_are_the_best_a_blind_guess_is_right_more_often():
    """Two of five were taken: a teacher that sees nothing is no better than the chance beside it; copying is right where either leads."""
    slates = [replace(one, slate=replace(one.slate, grades=(0, 1, 0, 1, 0), target_rank=3)) for one in SCORED]
    audit = chance_audit(run(BlindTeacher(), slates, attempts=2), slates, 2, None)
    assert audit["chance"]["blind_guess_at_cap"] == pytest.approx(1 - 0.6**2)
    assert audit["accepted_unverified_share"] == pytest.approx(1 - 0.6**2, abs=0.09)
    assert audit["chance"]["copying_incoming"] == 0
    assert scorer_audit(slates)["incoming"]["recall@1"] == 0 and scorer_audit(slates)["incoming"]["ndcg@5"] == pytest.approx(1 / np.log2(3))


def test_noise_audit_against_scipy():
    ledger = sample(StatisticalTeacher(LAYOUT, 0.5, 7, targeted=False), TraceChecks(LAYOUT), SCORED, 2, 1, 3)
    pairs = [(k.proposal.relevances, levels_of(k.scored.scores, k.scored.edges)) for k in ledger.kept]
    audit = noise_audit(ledger.kept)
    assert audit["spearman"] == pytest.approx(np.mean([spearmanr(a, b).statistic for a, b in pairs]))
    assert audit["changed_words"] == pytest.approx(np.mean([np.mean(np.abs(np.subtract(a, b))) for a, b in pairs]))
    assert noise_audit([]) == {}


def test_ranking_metrics_by_hand_and_by_fold():
    assert ranking_metrics(np.array([0, 1, 4, 5])) == {
        "recall@1": 0.25,
        "ndcg@5": pytest.approx((1 + 1 / np.log2(3) + 1 / np.log2(6)) / 4),
    }
    audit = scorer_audit(SCORED)
    assert [row["fold"] for row in audit["by_fold"]] == [1, 2] and sum(row["slates"] for row in audit["by_fold"]) == len(SCORED)
    mean = np.average([row["scorer"]["ndcg@5"] for row in audit["by_fold"]], weights=[row["slates"] for row in audit["by_fold"]])
    assert audit["scorer"]["ndcg@5"] == pytest.approx(mean)
    assert audit["scorer"]["recall@1"] > audit["incoming"]["recall@1"]  # the evidence was made to tell


def test_every_try_is_shown_in_an_order_of_its_own():
    teacher = StatisticalTeacher(LAYOUT, 0.1, 7, targeted=False)
    log = sample(teacher, TraceChecks(LAYOUT), SCORED, 6, 3, 3, shuffle_seed=7)
    plain = {one.slate.slate: one for one in SCORED}
    for kept in log.kept:
        original = plain[kept.scored.slate.slate]
        assert kept.shown == order_shown(original, kept.attempt - 1, 7) and sorted(kept.shown) == list(range(5))
        assert kept.scored.slate.candidates == [original.slate.candidates[rank] for rank in kept.shown]
        assert kept.scored.scores.tolist() == [original.scores[rank] for rank in kept.shown]
        assert kept.shown[kept.proposal.order[0]] == original.slate.target_rank
    assert len({kept.shown for kept in log.kept}) > 50
    first = [[kept.shown[0] for kept in log.kept].count(rank) / len(log.kept) for rank in range(5)]
    assert min(first) > 0.1, "no place of the initial ranking is shown first more often by far"
    assert order_shown(SCORED[0], 3, None) == (0, 1, 2, 3, 4)
