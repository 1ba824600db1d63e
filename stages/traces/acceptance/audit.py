"""Is the acceptance earned? The pass rates of a random guess and of a copy of the incoming order, next to the teacher's."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from stages.traces.acceptance.kept import Kept
from stages.traces.acceptance.rejection import RejectionLog
from stages.traces.acceptance.verification import ShuffledVerification
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
        "incoming": np.array([min(scored.slate.best_ranks) for scored in slates]),  # as unseen_rank counts, where several were taken
    }
    out: dict[str, Any] = {name: ranking_metrics(values) for name, values in ranks.items()}
    out["by_fold"] = [
        {"fold": int(b), "slates": int((folds == b).sum()), **{n: ranking_metrics(v[folds == b]) for n, v in ranks.items()}}
        for b in np.unique(folds)
    ]
    return out


def chance_audit(
    log: RejectionLog,
    slates: Sequence[ScoredSlate],
    attempts: int,
    max_noise_rank: int | None,
    shuffled: bool = True,
    verification: ShuffledVerification | None = None,
) -> dict[str, Any]:
    """Shares of the labelled slates. `attempts`: the cap the loop ran under (tries that could differ). `by_try` counts slates still open:
    with keep > 1 also those with a trace already.
    """
    n = len(slates)
    first_kept = {one.kept[0].scored.slate.slate: one.kept[0].attempt for one in log.slates if one.kept}
    # A slate without a kept trace counts with all its tries: leaving it out would make the teacher look quicker than it is.
    tries = np.array([first_kept.get(j.slate.slate, proposals) for j, proposals in zip(slates, log.tries, strict=True)])
    accepted = len(first_kept) / n
    chance = chance_of_passing(slates, tries, attempts, max_noise_rank, shuffled, verification)
    first = log.right[0] / log.tried[0]
    return {
        "labelled": n,
        "accepted": len(first_kept),
        "accepted_share": accepted,
        "accepted_unverified_share": log.total("accepted_unverified") / n,
        "kept_traces": len(log.kept),
        "refused_as_luck": log.total("luck"),
        "supported_share": float(_supported(slates, max_noise_rank).mean()),
        "repeated": log.total("repeated"),
        "unverified": log.total("unverified"),
        "asked_again": log.asked_again,
        "faults": dict(log.faults),
        "mean_tries_to_first": float(tries.mean()),
        "by_try": [
            {"try": i + 1, "tried": tried, "right": right, "right_share": right / tried}
            for i, (tried, right) in enumerate(zip(log.tried, log.right, strict=True))
        ],
        "chance": {
            **chance,
            "excess_over_blind_guess_with_rule": accepted - chance["blind_guess_verified_with_rule"],
            "first_try": first,
            "first_try_excess": first - by_chance(slates, lambda once, _: once),
        },
    }


def chance_of_passing(
    slates: Sequence[ScoredSlate],
    tries: np.ndarray,
    attempts: int,
    max_noise_rank: int | None,
    shuffled: bool,
    verification: ShuffledVerification | None,
) -> dict[str, float]:
    """What share of slates two who look at nothing would get a trace of.

    A random guess of the first candidate passes within n tries with probability 1 - (1 - p)^n, p = 1/K, and where it must be confirmed in
    m further orders, all of them, 1 - (1 - p^(m + 1))^n: at the cap; over the `tries` [n] each slate took; and at the cap under the rule
    against luck, which lets only slates pass whose target the features support. A copy of the order shown is a random guess where orders
    are shuffled; where they are not, its tries are all right or all wrong, and its confirmations are guesses.
    """

    def confirmed(once: float) -> float:
        return verification.chance(once) if verification else 1.0

    supported = float(_supported(slates, max_noise_rank).mean())
    at_cap = by_chance(slates, lambda once, _: 1.0 - (1.0 - once) ** attempts)
    verified = by_chance(slates, lambda once, _: 1.0 - (1.0 - once * confirmed(once)) ** attempts)
    confirmations = by_chance(slates, lambda once, _: 1.0 - (1.0 - confirmed(once)) ** attempts)
    copying = float(np.mean([0 in scored.slate.best_ranks for scored in slates]))
    return {
        "blind_guess_at_cap": at_cap,
        "blind_guess_over_tries_used": by_chance(slates, lambda once, rows: float((1.0 - (1.0 - once) ** tries[rows]).mean())),
        "blind_guess_at_cap_with_rule": at_cap * supported,
        "blind_guess_verified": verified,
        "blind_guess_verified_with_rule": verified * supported,
        "copying_incoming": copying,
        "copying_shown_at_cap": at_cap if shuffled else copying,
        "copying_shown_verified": verified if shuffled else copying * confirmations,
    }


def by_chance(slates: Sequence[ScoredSlate], figure: Callable[[float, np.ndarray], float]) -> float:
    """The mean over slates of a figure that follows from the chance of a random first choice to be right: 1/K, and B/K where B candidates
    are equally the best. figure: of that chance and the rows of the slates that have it."""
    chances = np.array([len(scored.slate.best_ranks) / len(scored.scores) for scored in slates])
    parts = [(chance, np.flatnonzero(chances == chance)) for chance in np.unique(chances).tolist()]
    return float(sum(len(rows) / len(slates) * figure(chance, rows) for chance, rows in parts))


def _supported(slates: Sequence[ScoredSlate], max_noise_rank: int | None) -> np.ndarray:
    """[n]: whether the features support the target."""
    return np.array([max_noise_rank is None or scored.support < max_noise_rank for scored in slates])


def noise_audit(kept: Sequence[Kept]) -> dict[str, float]:
    """How far the sampled relevances of kept traces stray from the noise-free ones.

    spearman: mean rank correlation within a slate; changed_words: mean distance in levels; same_first: share whose first
    candidate is the noise-free first.
    """
    rows = [(k.proposal.relevances, levels_of(k.scored.scores, k.scored.edges), k) for k in kept if k.proposal.relevances]
    if not rows:
        return {}
    # Slates of one length at a time: those of a retriever of ours are all alike.
    correlations: list[np.ndarray] = []
    changes: list[np.ndarray] = []
    for length in sorted({len(row[0]) for row in rows}):
        sampled, free = (np.array([row[which] for row in rows if len(row[0]) == length]) for which in (0, 1))
        a, b = rankdata(sampled, axis=1), rankdata(free, axis=1)
        # Spearman is Pearson on ranks; ties make the shortcut formula wrong, and a row of equal ranks has no correlation at all.
        a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
        norm = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
        varies = norm > 0.0
        correlations.append((a * b).sum(axis=1)[varies] / norm[varies])
        changes.append(np.abs(sampled - free).ravel())
    spearman = np.concatenate(correlations)
    return {
        "spearman": float(spearman.mean()) if len(spearman) else 0.0,
        "changed_words": float(np.concatenate(changes).mean()),
        "same_first": float(np.mean([k.scored.noise_free_rank == 0 for _, _, k in rows])),
    }
