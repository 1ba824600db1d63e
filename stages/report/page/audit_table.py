"""The audits as one table of the report: a row a model, a word where something is alarming; and what the table has no room for."""

from collections.abc import Mapping
from dataclasses import dataclass

from stages.report.diagnostics.audit import CONTRADICTS, DRIFT, MOSTLY, NEARLY_ALWAYS
from stages.report.diagnostics.audit_figures import Audit, FreeAnswers, Lengths, PositionEffects
from stages.report.diagnostics.faithfulness import KINDS
from stages.report.page.svg import fixed, share, signed
from stages.shared.stats.bootstrap import INCOMING

FEW_VALID = 0.99
NO_BIAS: PositionEffects = {"n": 0, "valid_share": []}  # of a ranker that was shown no shuffled slates
# Head of a column -> what it says; cells stand in this order.
COLUMNS = {
    "Same as initial": "Share of the slates on which the output repeats the initial ranking.",
    "One swap": "The initial ranking but for one swap of neighbours.",
    "Reversed": "The initial ranking from its end.",
    "Commonest order": "Share of the order given most often: high for one that answers the same whatever it reads.",
    "Kendall's tau": "Agreement with the initial ranking, on average: 1 the same, 0 unrelated, −1 reversed.",
    "Puts first": "The initial rank most often put first, and how often it is.",
    "Order changed": "Of slates also shown shuffled: how often the items are then ranked otherwise; 0 for a model blind to positions.",
    "First changed": "Likewise, how often another item is put first.",
    "Position slope": "By how many ranks an item sinks for each position it is shown lower: 0 blind to positions, 1 positions alone count.",
    "Invalid": "Outputs that are no permutation of the slate, as decoded for the scores above.",
    "Invalid, free": "The same on a sample decoded without constraints: how much the model leans on them.",
    "Contradictory": "Answers that contradict their own reasoning in any way; the ways are listed below.",
    "Reasoning tokens": "Mean length of the reasoning, and in brackets the difference from the SFT model.",
    "Answer tokens": "The same of the answer.",
}


@dataclass(frozen=True)
class Cell:
    text: str
    alarm: str = ""


def audit_rows(audits: Mapping[str, Audit], free: Mapping[str, FreeAnswers]) -> dict[str, list[Cell]]:
    """audits: model -> audit.audit; free: model -> {"valid_share", ...} of answers without constraints. The initial ranking is no model."""
    return {name: _cells(audit, free.get(name)) for name, audit in audits.items() if name != INCOMING}


def audit_details(audit: Audit, free: FreeAnswers | None) -> dict[str, list[str]]:
    """Heading -> lines, of one model; headings without lines are left out."""
    contradictions = audit.get("contradictions")
    lines = {
        "Invalid outputs": [f"{kind}: {share(part)}" for kind, part in audit["invalid"].items()],
        "Invalid outputs without constraints": [f"{kind}: {share(part)}" for kind, part in (free["invalid"] if free else {}).items()],
        "Contradictions": [
            f"{share(entry['share'])} of {entry['n']:,}: {KINDS.get(kind, kind)}"
            for kind, entry in (contradictions["kinds"] if contradictions else {}).items()
        ],
        "Lengths in tokens": [_length_line(name, entry) for name, entry in audit.get("lengths", {}).items()],
        "Under a shuffled order": _bias_lines(audit.get("position_bias")),
    }
    return {heading: entry for heading, entry in lines.items() if entry}


def _cells(audit: Audit, free: FreeAnswers | None) -> list[Cell]:
    copies, swaps = audit["identity_share"], audit["adjacent_swap_share"]
    first, bias, contradictions = audit.get("first_from"), audit.get("position_bias") or NO_BIAS, audit.get("contradictions")
    return [
        Cell(share(copies), "copies" if copies >= MOSTLY else ""),
        # Only where copying alone does not raise the alarm already.
        Cell(share(swaps), "hardly moves" if copies < MOSTLY <= copies + swaps else ""),
        _share(audit["reversed_share"], MOSTLY, "reverses"),
        _share(audit["commonest_order_share"], MOSTLY, "one answer for all"),
        Cell(fixed(audit["kendall_tau"], 2) if "kendall_tau" in audit else "–"),
        Cell(
            f"rank {first['commonest'] + 1}: {share(first['commonest_share'])}" if first else "–",
            "always that one" if first and first["commonest_share"] >= NEARLY_ALWAYS else "",
        ),
        _share(bias.get("changed_share")),
        _share(bias.get("first_changed_share"), MOSTLY, "unstable"),
        Cell(fixed(bias["slope"], 2) if "slope" in bias else "–", "by position" if bias.get("position_share", 0) >= MOSTLY else ""),
        Cell(share(1 - audit["valid_share"]), "often invalid" if audit["valid_share"] < FEW_VALID else ""),
        _share(1 - free["valid_share"] if free else None, MOSTLY, "needs constraints"),
        Cell(
            share(contradictions["any_share"]) if contradictions else "–",
            "contradicts itself"
            if contradictions and any(entry["share"] >= CONTRADICTS for entry in contradictions["kinds"].values())
            else "",
        ),
        *(_length(audit.get("lengths", {}).get(name)) for name in ("reasoning", "answer")),
    ]


def _share(number: float | None, alarm_from: float = 2.0, alarm: str = "") -> Cell:
    return Cell("–") if number is None else Cell(share(number), alarm if number >= alarm_from else "")


def _length(length: Lengths | None) -> Cell:
    if length is None:
        return Cell("–")
    if "shift" not in length:
        return Cell(fixed(length["mean"], 1))
    # Against the reference's mean, which is this mean minus the shift.
    drifts = abs(length["shift"]) > DRIFT * (length["mean"] - length["shift"])
    return Cell(f"{fixed(length['mean'], 1)} ({signed(length['shift'], 1)})", "drifts" if drifts else "")


def _length_line(name: str, length: Lengths) -> str:
    middle = ", ".join(f"{float(at):.0%} {value:.0f}" for at, value in length["quantiles"].items())
    blocks = length["by_block"]
    return (
        f"{name}: mean {fixed(length['mean'], 1)}, longest {length['longest']:,}, quantiles {middle}; "
        f"from the first tenth of the slates to the last {fixed(blocks[0], 1)} to {fixed(blocks[-1], 1)}"
    )


def _bias_lines(bias: PositionEffects | None) -> list[str]:
    if not bias or "new_position" not in bias:
        return []
    positions = ", ".join(fixed(place + 1, 1) for place in bias["new_position"])
    target = bias["target_rank"]
    return [
        f"{bias['n']:,} slates shown in both orders; Kendall's tau between the two answers {fixed(bias['kendall_tau'], 2)}",
        f"mean rank of the target {fixed(target['incoming'] + 1, 2)} as it came in, {fixed(target['shuffled'] + 1, 2)} shuffled",
        f"mean rank given to whatever item stands at position 1, 2 and so on: {positions}",
    ]
