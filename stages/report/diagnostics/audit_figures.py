"""The figures of an audit, as they stand under `audit` in data/report/metrics.json."""

from typing import Required, TypedDict


class FirstFrom(TypedDict):
    """From which initial rank the first of each answer came: see audit.first_from."""

    shares: list[float]
    entropy: float
    commonest: int
    commonest_share: float


class Lengths(TypedDict, total=False):
    """See audit.lengths; `shift` and `distance` only with a reference."""

    mean: Required[float]
    quantiles: Required[dict[str, float]]
    longest: Required[int]
    by_block: Required[list[float]]
    trend: Required[float]
    shift: float
    distance: float


class ContradictionShare(TypedDict):
    n: int
    share: float


class Contradictions(TypedDict, total=False):
    """See faithfulness.summary."""

    n: Required[int]
    any_share: Required[float]
    kinds: Required[dict[str, ContradictionShare]]
    discordant_pairs: float


class TargetRanks(TypedDict):
    """Mean rank of the target in both presentations."""

    incoming: float
    shuffled: float


class PositionEffects(TypedDict, total=False):
    """See position_bias.PositionBias.summary; all but the first two are left out where no pair of answers is valid."""

    n: Required[int]
    valid_share: Required[list[float]]
    changed_share: float
    first_changed_share: float
    kendall_tau: float
    target_rank: TargetRanks
    new_position: list[float]
    slope: float
    position_share: float


class Audit(TypedDict, total=False):
    """See audit.audit for the first eleven; diagnostics.audits_of adds the others to those of models."""

    valid_share: Required[float]
    identity_share: Required[float]
    adjacent_swap_share: Required[float]
    reversed_share: Required[float]
    commonest_order_share: Required[float]
    invalid: Required[dict[str, float]]
    by_incoming_rank: Required[list[dict[str, float]]]
    positions: Required[list[list[int]]]
    rank_flow: Required[list[list[int]]]
    kendall_tau: float
    first_from: FirstFrom
    lengths: dict[str, Lengths]
    contradictions: Contradictions
    position_bias: PositionEffects


class FreeAnswers(TypedDict):
    """Of answers without the constraint: see diagnostics.unconstrained."""

    n: int
    valid_share: float
    invalid: dict[str, float]
