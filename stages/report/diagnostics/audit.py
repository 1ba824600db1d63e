"""What a model does to the orders it is given, beyond its score: does it copy, repeat itself, favour positions, break the format?"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr, wasserstein_distance

from stages.report.diagnostics.audit_figures import Audit, FirstFrom, Lengths
from stages.report.diagnostics.faithfulness import KINDS

Ints = NDArray[np.int_]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BLOCKS = 10
# From these shares on, `red_flags` speaks up. Conventions, not tests: the shares themselves stand in metrics.json.
MOSTLY = 0.5
NEARLY_ALWAYS = 0.9
CONTRADICTS = 0.01
DRIFT = 0.25


def identical_to_incoming(orders: Ints) -> Bools:
    """orders [n, K] -> [n]: the output is the initial ranking again."""
    same: Bools = np.all(orders == np.arange(orders.shape[1]), axis=1)
    return same


def adjacent_swap_only(orders: Ints) -> Bools:
    """orders [n, K] permutations -> [n]: the initial ranking but for one swap of neighbours."""
    moved = np.abs(orders - np.arange(orders.shape[1]))
    swapped: Bools = (moved.sum(axis=1) == 2) & (moved.max(axis=1) == 1)
    return swapped


def reversed_incoming(orders: Ints, sizes: Ints | None = None) -> Bools:
    """orders [n, K] -> [n]: the initial ranking from its end. sizes [n]: candidates of each slate, None = K."""
    if sizes is None:
        return identical_to_incoming(orders[:, ::-1])
    places = np.arange(orders.shape[1])
    behind = places >= sizes[:, None]
    same: Bools = np.all((orders == sizes[:, None] - 1 - places) | behind, axis=1)
    return same


def kendall_tau(orders: Ints, other_orders: Ints, sizes: Ints | None = None) -> Floats:
    """Two orders [n, K] of the same candidates, two or more -> [n], from -1 (reversed) to 1 (the same). sizes as of reversed_incoming."""
    size = orders.shape[1]
    positions = np.take_along_axis(
        np.argsort(orders, axis=1), other_orders, axis=1
    )  # where `orders` puts what `other_orders` puts first, second ...
    low, high = np.triu_indices(size, 1)
    # Counted pair by pair: with K of ten or twenty that is a small table, and exact.
    inversions = (positions[:, low] > positions[:, high]).sum(axis=1)
    own = size if sizes is None else sizes  # pairs with a place behind the end are never the wrong way round
    tau: Floats = 1 - 4 * inversions / (own * (own - 1))
    return tau


def first_from(orders: Ints) -> FirstFrom:
    """Which incoming position the first of each answer came from: shares by position, their entropy, and the commonest (from 0).

    entropy: in bits; 0 for a model that always promotes one position, log2 K for one that promotes all alike.
    """
    shares = np.bincount(orders[:, 0], minlength=orders.shape[1]) / len(orders)
    # A share of 0 adds nothing, and its logarithm is minus infinity.
    positive_shares = shares[shares > 0]
    entropy = -float(positive_shares @ np.log2(positive_shares)) + 0.0
    return {"shares": shares.tolist(), "entropy": entropy, "commonest": int(shares.argmax()), "commonest_share": float(shares.max())}


def invalid_by_kind(faults: Sequence[str]) -> dict[str, float]:
    """faults [n]: why each output is not a permutation, empty where it is one -> share of all outputs, by kind."""
    counts = Counter(fault for fault in faults if fault)
    return {fault: counts[fault] / len(faults) for fault in sorted(counts)}


def rank_flow(target_rank: Ints, new_rank: Ints, slate_size: int) -> Ints:
    """[K, K]: slates whose target came in at rank row and left at rank column (from 0)."""
    flow = np.zeros((slate_size, slate_size), dtype=np.int_)
    np.add.at(flow, (target_rank, new_rank), 1)
    return flow


def moves_by_incoming_rank(flow: Ints) -> list[dict[str, float]]:
    """flow as of rank_flow -> for the targets that came in at each rank (from 0): their mean new rank, and how many were promoted, kept
    their rank or were demoted. Ranks at which none came in are left out.

    A model that earns its mean by lifting the last and sinking the first shows it here.
    """
    ranks = np.arange(len(flow))
    rows = []
    for rank, counts in enumerate(flow):
        if n := int(counts.sum()):
            mean = float(counts @ ranks / n)
            moved = {"promoted": int(counts[:rank].sum()), "kept": int(counts[rank]), "demoted": int(counts[rank + 1 :].sum())}
            rows.append({"incoming_rank": rank, "n": n, "mean_new_rank": mean, "gain": rank - mean} | moved)
    return rows


def position_histogram(orders: Ints) -> Ints:
    """[K, K]: how often incoming position row is put at new position column; even where the model looks at items, not positions."""
    size = orders.shape[1]
    return np.stack([np.bincount(orders[:, column], minlength=size) for column in range(size)], axis=1)


def commonest_order_share(orders: Ints) -> float:
    """Share of the output seen most often: 1.0 for a model that answers the same whatever it reads."""
    _, counts = np.unique(orders, axis=0, return_counts=True)
    return float(counts.max() / len(orders))


def audit(orders: Ints, target_rank: Ints, new_rank: Ints, faults: Sequence[str], sizes: Ints | None = None) -> Audit:
    """All of the above for one model, ready for JSON. orders [n, K]; target_rank, new_rank [n]; faults [n] as in invalid_by_kind.

    sizes [n]: candidates of each slate, None = K of all.

    An invalid output stands in `orders` as the initial ranking. It counts so in by_incoming_rank, positions and rank_flow, which explain
    the score, but is no copy: the shares of copies, swaps and reversals are of all outputs, and hold valid ones only.
    commonest_order_share, kendall_tau and first_from are over the valid ones; the last two are left out where there are none.
    """
    orders = np.asarray(orders)
    valid = np.array([not fault for fault in faults])
    valid_orders = orders[valid]
    flow = rank_flow(target_rank, new_rank, orders.shape[1])
    figures: Audit = {
        "valid_share": float(valid.mean()),
        "identity_share": float((identical_to_incoming(orders) & valid).mean()),
        "adjacent_swap_share": float((adjacent_swap_only(orders) & valid).mean()),
        "reversed_share": float((reversed_incoming(orders, sizes) & valid).mean()),
        "commonest_order_share": commonest_order_share(valid_orders) if len(valid_orders) else 0.0,
        "invalid": invalid_by_kind(faults),
        "by_incoming_rank": moves_by_incoming_rank(flow),
        "positions": position_histogram(orders).tolist(),
        "rank_flow": flow.tolist(),
    }
    if len(valid_orders):
        figures["kendall_tau"] = float(
            kendall_tau(
                valid_orders,
                np.broadcast_to(np.arange(valid_orders.shape[1]), valid_orders.shape),
                None if sizes is None else sizes[valid],
            ).mean()
        )
        figures["first_from"] = first_from(valid_orders)
    return figures


def lengths(tokens: Sequence[int], reference: Sequence[int] = ()) -> Lengths:
    """tokens [n]: of each output's reasoning, or answer, in the order of the file; reference [m]: the same of another model, such as SFT.

    by_block: mean of each tenth of the file; trend: Spearman correlation with the place in the file. shift: difference of the means
    from the reference; distance: the tokens that each output must move on average to make the two distributions equal (Wasserstein),
    which also sees a spread that the means hide.
    """
    values = np.asarray(tokens, dtype=np.float64)
    figures: Lengths = {
        "mean": float(values.mean()),
        "quantiles": {str(at): float(value) for at, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)},
        "longest": int(values.max()),
        "by_block": [float(block.mean()) for block in np.array_split(values, min(BLOCKS, len(values)))],
        # Equal lengths have no rank correlation: scipy would give NaN, which no JSON takes.
        "trend": float(spearmanr(np.arange(len(values)), values).statistic) if np.ptp(values) else 0.0,
    }
    if len(reference):
        reference_values = np.asarray(reference, dtype=np.float64)
        figures["shift"] = figures["mean"] - float(reference_values.mean())
        figures["distance"] = float(wasserstein_distance(values, reference_values))
    return figures


def red_flags(figures: Audit) -> list[str]:
    """What in an audit a reader must know before the score, in sentences; positions count from 1.

    Besides the keys of `audit` it reads, if given, `contradictions` (faithfulness.summary), `position_bias` (position_bias.summary)
    and `lengths` (name -> lengths, of those with a reference).
    """
    # Absent where no answer was valid: then there is nothing to say about it.
    first = figures.get("first_from") or {"commonest": 0, "commonest_share": 0.0}
    contradicted = contradictions["kinds"] if (contradictions := figures.get("contradictions")) else {}
    copies, near_copies = figures["identity_share"], figures["identity_share"] + figures["adjacent_swap_share"]
    moved = bias.get("position_share", 0.0) if (bias := figures.get("position_bias")) else 0.0
    drifts = {
        name: (entry["mean"] - entry["shift"], entry["mean"]) for name, entry in figures.get("lengths", {}).items() if "shift" in entry
    }
    checks = [
        (copies >= MOSTLY, f"repeats the initial ranking on {copies:.1%} of the slates"),
        (
            near_copies >= MOSTLY and near_copies > copies,
            f"repeats the initial ranking or swaps two neighbours in it on {near_copies:.1%} of the slates",
        ),
        (figures["reversed_share"] >= MOSTLY, f"reverses the initial ranking on {figures['reversed_share']:.1%} of the slates"),
        (
            figures["commonest_order_share"] >= MOSTLY,
            f"gives one and the same order in {figures['commonest_order_share']:.1%} of its answers",
        ),
        (
            first["commonest_share"] >= NEARLY_ALWAYS,
            f"puts position {first['commonest'] + 1} first in {first['commonest_share']:.1%} of its answers",
        ),
        (moved >= MOSTLY, f"ranks by position: {moved:.1%} of the variance of its ranks is owed to where a candidate stands"),
        *(
            (entry["share"] >= CONTRADICTS, f"contradicts itself in {entry['share']:.1%} of {entry['n']:,} answers: {KINDS[kind]}")
            for kind, entry in contradicted.items()
        ),
        *(
            (
                abs(mean - reference_mean) > DRIFT * reference_mean,
                f"{name}: {mean:.1f} tokens on average, the reference {reference_mean:.1f}",
            )
            for name, (reference_mean, mean) in drifts.items()
        ),
    ]
    return [sentence for holds, sentence in checks if holds]
