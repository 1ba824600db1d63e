"""Is the acceptance earned? The pass rates of a random guess and of a copy of the incoming order, next to the teacher's."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from stages.traces.acceptance.rejection import Kept, RejectionLog
from stages.traces.out_of_time import ScoredSlate
from stages.traces.teachers.teacher import levels_of


def ranking_metrics(ranks: np.ndarray) -> dict[str, float]:
    """ranks [n]: place of the one relevant candidate, from 0."""
    return {"recall@1": float((ranks == 0).mean()), "ndcg@5": float(np.where(ranks < 5, 1.0 / np.log2(ranks + 2.0), 0.0).mean())}


def scorer_audit(slates: Sequence[ScoredSlate]) -> dict[str, Any]:
    """The noise-free scorer next to the incoming order, on slates later than those it was fitted on; whole and by fold."""
    folds = np.array([scored.fold for scored in slates])
    ranks = {
        "scorer": np.array([scored.unseen_rank for scored in slates]),
        "incoming": np.array([scored.slate.target_rank for scored in slates]),
    }
    out: dict[str, Any] = {name: ranking_metrics(values) for name, values in ranks.items()}
    out["by_fold"] = [
        {"fold": int(b), "slates": int((folds == b).sum()), **{n: ranking_metrics(v[folds == b]) for n, v in ranks.items()}}
        for b in np.unique(folds)
    ]
    return out


def chance_audit(log: RejectionLog, slates: Sequence[ScoredSlate], attempts: int, max_noise_rank: int | None) -> dict[str, Any]:
    """Shares of the labelled slates. `attempts`: the cap the loop ran under (tries that could differ).

    blind_guess: a random guess of the first candidate passes within n tries with probability 1 - (1 - 1/K)^n: at the cap; over
    the tries each slate took until its first kept trace; and at the cap under the rule against luck, which lets only slates
    pass whose target the features support. `by_try` counts slates still open: with keep > 1 also those with a trace already.
    """
    n, k = len(slates), len(slates[0].scores)
    first_kept: dict[int, int] = {}
    for kept in log.kept:  # by attempt within a slate
        first_kept.setdefault(kept.scored.slate.slate, kept.attempt)
    # A slate without a kept trace counts with all its tries: leaving it out would make the teacher look quicker than it is.
    tries = np.array([first_kept.get(j.slate.slate, proposals) for j, proposals in zip(slates, log.tries, strict=True)])
    supported = np.array([max_noise_rank is None or scored.unseen_rank < max_noise_rank for scored in slates])
    at_cap = 1.0 - (1.0 - 1.0 / k) ** attempts
    accepted = len(first_kept) / n
    with_rule = at_cap * float(supported.mean())
    first = log.right[0] / log.tried[0]
    return {
        "labelled": n,
        "accepted": len(first_kept),
        "accepted_share": accepted,
        "kept_traces": len(log.kept),
        "refused_as_luck": log.luck,
        "supported_share": float(supported.mean()),
        "repeated": log.repeated,
        "faults": dict(log.faults),
        "mean_tries_to_first": float(tries.mean()),
        "by_try": [
            {"try": i + 1, "tried": tried, "right": right, "right_share": right / tried}
            for i, (tried, right) in enumerate(zip(log.tried, log.right, strict=True))
        ],
        "chance": {
            "blind_guess_at_cap": at_cap,
            "blind_guess_over_tries_used": float((1.0 - (1.0 - 1.0 / k) ** tries).mean()),
            "blind_guess_at_cap_with_rule": with_rule,
            "copying_incoming": float(np.mean([scored.slate.target_rank == 0 for scored in slates])),
            "excess_over_blind_guess_with_rule": accepted - with_rule,
            "first_try": first,
            "first_try_excess": first - 1.0 / k,
        },
    }


def noise_audit(kept: Sequence[Kept]) -> dict[str, float]:
    """How far the sampled relevances of kept traces stray from the noise-free ones.

    spearman: mean rank correlation within a slate; changed_words: mean distance in levels; same_first: share whose first
    candidate is the noise-free first.
    """
    rows = [(k.proposal.relevances, levels_of(k.scored.scores, k.scored.edges), k) for k in kept if k.proposal.relevances]
    if not rows:
        return {}
    sampled, free = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    a, b = rankdata(sampled, axis=1), rankdata(free, axis=1)
    # Spearman is Pearson on ranks; ties make the shortcut formula wrong, and a row of equal ranks has no correlation at all.
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norm = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    varies = norm > 0.0
    return {
        "spearman": float(((a * b).sum(axis=1)[varies] / norm[varies]).mean()) if varies.any() else 0.0,
        "changed_words": float(np.abs(sampled - free).mean()),
        "same_first": float(np.mean([k.scored.noise_free_rank == 0 for _, _, k in rows])),
    }
