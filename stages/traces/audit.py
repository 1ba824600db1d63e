"""Is the acceptance earned? What a blind guess and a copy of the incoming order would pass, beside what the teacher passes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from stages.traces.out_of_time import Judged
from stages.traces.rejection import Kept, Ledger
from stages.traces.teacher import relevances_of


def ranking_metrics(ranks: np.ndarray) -> dict[str, float]:
    """ranks [n]: place of the one relevant candidate, from 0."""
    return {"recall@1": float((ranks == 0).mean()), "ndcg@5": float(np.where(ranks < 5, 1.0 / np.log2(ranks + 2.0), 0.0).mean())}


def scorer_audit(slates: Sequence[Judged]) -> dict[str, Any]:
    """The noise-free scorer beside the incoming order, on slates later than those it was fitted on; whole and by block."""
    blocks = np.array([judged.block for judged in slates])
    ranks = {
        "scorer": np.array([judged.noise_free_rank for judged in slates]),
        "incoming": np.array([judged.slate.target_rank for judged in slates]),
    }
    out: dict[str, Any] = {name: ranking_metrics(values) for name, values in ranks.items()}
    out["by_block"] = [
        {"block": int(b), "slates": int((blocks == b).sum()), **{n: ranking_metrics(v[blocks == b]) for n, v in ranks.items()}}
        for b in np.unique(blocks)
    ]
    return out


def chance_audit(ledger: Ledger, slates: Sequence[Judged], attempts: int, max_noise_rank: int | None) -> dict[str, Any]:
    """Shares of the labelled slates. `attempts`: the cap the loop ran under (tries that could differ).

    blind_guess: a guess that draws the first at random passes within n tries with probability 1 - (1 - 1/K)^n: at the cap; over
    the tries each slate took until its first kept trace; and at the cap under the rule against luck, which lets only slates
    pass whose target the evidence supports. `by_try` counts slates still open: with keep > 1 also those with a trace already.
    """
    n, k = len(slates), len(slates[0].scores)
    first_kept: dict[int, int] = {}
    for kept in ledger.kept:  # by attempt within a slate
        first_kept.setdefault(kept.judged.slate.slate, kept.attempt)
    tries = np.array([first_kept.get(j.slate.slate, asked) for j, asked in zip(slates, ledger.tries, strict=True)])
    supported = np.array([max_noise_rank is None or judged.noise_free_rank < max_noise_rank for judged in slates])
    at_cap = 1.0 - (1.0 - 1.0 / k) ** attempts
    accepted = len(first_kept) / n
    with_rule = at_cap * float(supported.mean())
    first = ledger.right[0] / ledger.tried[0]
    return {
        "labelled": n,
        "accepted": len(first_kept),
        "accepted_share": accepted,
        "kept_traces": len(ledger.kept),
        "refused_as_luck": ledger.luck,
        "supported_share": float(supported.mean()),
        "repeated": ledger.repeated,
        "faults": dict(ledger.faults),
        "mean_tries_to_first": float(tries.mean()),
        "by_try": [
            {"try": i + 1, "tried": tried, "right": right, "right_share": right / tried}
            for i, (tried, right) in enumerate(zip(ledger.tried, ledger.right, strict=True))
        ],
        "chance": {
            "blind_guess_at_cap": at_cap,
            "blind_guess_over_tries_used": float((1.0 - (1.0 - 1.0 / k) ** tries).mean()),
            "blind_guess_at_cap_with_rule": with_rule,
            "copying_incoming": float(np.mean([judged.slate.target_rank == 0 for judged in slates])),
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
    rows = [(k.proposal.relevances, relevances_of(k.judged.scores, k.judged.edges), k) for k in kept if k.proposal.relevances]
    if not rows:
        return {}
    sampled, free = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    a, b = rankdata(sampled, axis=1), rankdata(free, axis=1)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norm = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    told = norm > 0.0
    return {
        "spearman": float(((a * b).sum(axis=1)[told] / norm[told]).mean()) if told.any() else 0.0,
        "changed_words": float(np.abs(sampled - free).mean()),
        "same_first": float(np.mean([k.judged.noise_free_rank == 0 for _, _, k in rows])),
    }
