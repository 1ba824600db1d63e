"""The gates, one function each: paired difference, flips (AgentDevel), and upper bounds of harm (HC-RLHF)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.promote.answers import Paired
from stages.promote.bounds import upper_bound
from stages.promote.params import PromoteParams
from stages.shared.core.errors import StageError
from stages.shared.stats.bootstrap import Bootstrap, paired_interval
from stages.shared.stats.metrics import slate_metrics
from stages.shared.stats.significance import holm, sign_flip_tests

PASSED, FAILED, COULD_NOT_RUN = "passed", "failed", "could not run"
ALPHA = 0.05  # of the test whether a slice lost
INITIAL_RANKS = {"first": (0, 0), "2nd or 3rd": (1, 2), "4th to 6th": (3, 5), "7th or below": (6, 10**6)}


@dataclass(frozen=True)
class GateResult:
    """verdict: one of the three above; sentence: what was found, for a person; evidence: the figures it rests on."""

    name: str
    verdict: str
    sentence: str
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "verdict": self.verdict, "sentence": self.sentence, "evidence": dict(self.evidence)}


Gate = Callable[[], tuple[bool, str, Mapping[str, Any]]]


def run_check(name: str, gate: Gate) -> GateResult:
    """A check that cannot be made is no pass: its StageError becomes its sentence."""
    try:
        passed, sentence, evidence = gate()
    except StageError as error:
        return GateResult(name, COULD_NOT_RUN, str(error))
    return GateResult(name, PASSED if passed else FAILED, sentence, evidence)


def difference(paired: Paired, params: PromoteParams) -> tuple[bool, str, Mapping[str, Any]]:
    """Non-inferiority: the 95 % interval of candidate minus champion lies above -margin. Superiority: above zero."""
    before, after = (slate_metrics(ranks)[params.metric] for ranks in (paired.before, paired.after))
    diffs = after - before
    low, high = paired_interval(diffs, Bootstrap(paired.users, params.resamples, params.seed))
    diff = float(diffs.mean())
    superior, non_inferior = low > 0, low > -params.margin
    word = "worse" if high < 0 else "superior" if superior else "non-inferior" if non_inferior else "not shown to be non-inferior"
    passed = superior if params.require == "superior" else non_inferior
    needed = "above 0" if params.require == "superior" else f"above -{params.margin:g}"
    sentence = f"{word}: {params.metric} {diff:+.4f} [{low:+.4f}, {high:+.4f}] on {len(diffs):,} slates; the interval must lie {needed}"
    users = len(np.unique(paired.users))
    evidence = {"metric": params.metric, "champion": float(before.mean()), "candidate": float(after.mean()), "diff": diff}
    return passed, sentence, {**evidence, "low": low, "high": high, "slates": len(diffs), "users": users, "superior": bool(superior)}


def regressions(paired: Paired, params: PromoteParams) -> tuple[bool, str, Mapping[str, Any]]:
    """Slates that were right and become wrong: a mean hides them where as many were wrong and become right."""
    lost, won = _flips(paired, params)
    bound = upper_bound(lost, paired.users, params.delta)
    sentence = (
        f"{lost.mean():.1%} of the slates were right and become wrong (at most {bound:.1%}, with {1 - params.delta:.0%} confidence; limit "
        f"{params.max_regressions:.0%}), {won.mean():.1%} the other way"
    )
    evidence = {"right_within": params.right_within, "right_to_wrong": int(lost.sum()), "wrong_to_right": int(won.sum())}
    return bound <= params.max_regressions, sentence, {**evidence, "slates": len(lost), "upper_bound": bound}


def slice_losses(paired: Paired, params: PromoteParams) -> tuple[bool, str, Mapping[str, Any]]:
    """No slice loses more right answers than it wins, by more than chance (sign flips over users, Holm over slices) and the limit."""
    lost, won = _flips(paired, params)
    slices = _slices(paired)
    changes_NS = np.stack([np.where(rows, won.astype(float) - lost, 0.0) for rows in slices.values()], axis=1)
    p = holm(sign_flip_tests(changes_NS, paired.users, params.resamples, params.seed))
    table, harmed = [], []
    for (label, rows), p_value in zip(slices.items(), p.tolist(), strict=True):
        count, slice_lost, slice_won = int(rows.sum()), int(lost[rows].sum()), int(won[rows].sum())
        loss = (slice_lost - slice_won) / count
        row = {"slice": label, "slates": count, "right_to_wrong": slice_lost, "wrong_to_right": slice_won, "net_loss": loss, "p": p_value}
        table.append(row)
        if loss > params.max_slice_loss and p_value <= ALPHA:
            harmed.append(f"{label}: {loss:+.1%} of {count:,} slates (p {p_value:.2g})")
    sentence = (
        f"right answers lost in {len(harmed)} of {len(table)} slices, net, beyond {params.max_slice_loss:.0%}: {'; '.join(harmed)}"
        if harmed
        else f"none of {len(table)} slices loses more than {params.max_slice_loss:.0%} of its right answers, net, beyond chance"
    )
    return not harmed, sentence, {"slices": table}


def harm(events: NDArray[np.bool_], users: NDArray[np.int_], limit: float, delta: float) -> tuple[bool, str, Mapping[str, Any]]:
    """The safety test of HC-RLHF: a rate passes when its upper confidence bound does."""
    bound = upper_bound(events, users, delta)
    rate = float(events.mean())
    sentence = f"{rate:.1%}, at most {bound:.1%} with {1 - delta:.1%} confidence; limit {limit:.0%}"
    return bound <= limit, sentence, {"rate": rate, "upper_bound": bound, "limit": limit, "delta": delta, "slates": len(events)}


def _flips(paired: Paired, params: PromoteParams) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """[n] each: right and then wrong; wrong and then right."""
    was, now = paired.before < params.right_within, paired.after < params.right_within
    return was & ~now, ~was & now


def _slices(paired: Paired) -> dict[str, NDArray[np.bool_]]:
    """label -> the slates in it [n]; none is empty."""
    edges = np.unique(np.quantile(paired.positions, [0.25, 0.5, 0.75]))
    quarter = np.searchsorted(edges, paired.positions, side="left")
    slices = {}
    for place in np.unique(quarter).tolist():
        rows = quarter == place
        slices[f"history of {paired.positions[rows].min()} to {paired.positions[rows].max()}"] = rows
    # The initial ranking is right where the target came in first, and nowhere else: as a champion it could only lose there.
    if paired.champion_is_model:
        for word, (low, high) in INITIAL_RANKS.items():
            if (rows := (paired.target >= low) & (paired.target <= high)).any():
                slices[f"target came in {word}"] = rows
    return slices
