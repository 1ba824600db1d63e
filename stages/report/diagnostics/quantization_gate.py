"""Is the quantized model as good as the one it was made of? A paired gate: non-inferiority in NDCG@5 on the same slates."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.stats.bootstrap import Bootstrap, paired_interval
from stages.shared.stats.metrics import ranks_of_targets, slate_metrics

METRIC = "ndcg@5"


def quantization_gate(
    full: Rankings, quantized: Rankings, targets: NDArray[np.int_], margin: float, bootstrap: Bootstrap, made: Mapping[str, Any]
) -> dict[str, Any]:
    """ReportMetrics.gate. targets [n]: initial ranks; made: data/quantize/metrics.json. Passed: the interval lies above -margin.

    An answer that is no permutation counts as the initial ranking, for both.
    """
    ranks = {name: ranks_of_targets(rankings.orders, targets) for name, rankings in (("full", full), ("quantized", quantized))}
    difference = slate_metrics(ranks["quantized"])[METRIC] - slate_metrics(ranks["full"])[METRIC]
    low, high = paired_interval(difference, bootstrap)
    first = {name: rank == 0 for name, rank in ranks.items()}
    return {
        "passed": bool(low > -margin),
        "margin": margin,
        "metric": METRIC,
        "difference": float(difference.mean()),
        "interval": [low, high],
        "slates": len(targets),
        "right_to_wrong": int((first["full"] & ~first["quantized"]).sum()),
        "wrong_to_right": int((~first["full"] & first["quantized"]).sum()),
        "equal_share": float((full.orders == quantized.orders).all(axis=1).mean()),
        "valid_difference": float(quantized.valid.mean() - full.valid.mean()),
        "kl": float(made["calibration"]["kl"]),
        "share_of_bfloat16": float(made["bytes"]["share_of_bfloat16"]),
    }


def gate_note(gate: Mapping[str, Any]) -> str:
    """For the page."""
    verdict = "passes its gate" if gate["passed"] else "FAILS its gate"
    low, high = gate["interval"]
    return (
        f"The quantized model {verdict}: NDCG@5 minus the full model's {gate['difference']:+.4f} [{low:+.4f}, {high:+.4f}], which must lie "
        f"above -{gate['margin']:g}; {100 * gate['equal_share']:.1f} % of the orders are the same, the target lost the first place in "
        f"{gate['right_to_wrong']} {'slate' if gate['right_to_wrong'] == 1 else 'slates'} and won it in {gate['wrong_to_right']}; its "
        f"weights take {100 * gate['share_of_bfloat16']:.0f} % of the bytes of bfloat16."
    )
