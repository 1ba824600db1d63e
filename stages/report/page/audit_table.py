"""The audits as one table of the report: a row a model, a word where something is alarming; and what the table has no room for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.report.diagnostics.audit import CONTRADICTS, DRIFT, MOSTLY, NEARLY_ALWAYS
from stages.report.diagnostics.faithfulness import KINDS
from stages.report.page.svg import fixed, share, signed
from stages.shared.stats.bootstrap import INCOMING

FEW_VALID = 0.99
# Head of a column -> what it says; cells stand in this order.
COLUMNS = {
    "Same as incoming": "Share of the slates on which the output repeats the incoming order.",
    "One swap": "The incoming order but for one swap of neighbours.",
    "Reversed": "The incoming order from its end.",
    "Commonest order": "Share of the order given most often: high for one that answers the same whatever it reads.",
    "Kendall's tau": "Agreement with the incoming order, on average: 1 the same, 0 unrelated, −1 reversed.",
    "Puts first": "The incoming rank most often put first, and how often it is.",
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


def audit_rows(audits: Mapping[str, Mapping[str, Any]], free: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Cell]]:
    """audits: model -> audit.audit; free: model -> {"valid_share", ...} of answers without constraints. The incoming order is no model."""
    return {name: _cells(found, free.get(name)) for name, found in audits.items() if name != INCOMING}


def audit_details(found: Mapping[str, Any], free: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """Heading -> lines, of one model; headings without lines are left out."""
    lines = {
        "Invalid outputs": [f"{kind}: {share(part)}" for kind, part in found["invalid"].items()],
        "Invalid outputs without constraints": [f"{kind}: {share(part)}" for kind, part in (free or {}).get("invalid", {}).items()],
        "Contradictions": [
            f"{share(own['share'])} of {own['n']:,}: {KINDS.get(kind, kind)}"
            for kind, own in found.get("contradictions", {}).get("kinds", {}).items()
        ],
        "Lengths in tokens": [_length_line(name, own) for name, own in found.get("lengths", {}).items()],
        "Under a shuffled order": _bias_lines(found.get("position_bias", {})),
    }
    return {heading: own for heading, own in lines.items() if own}


def _cells(found: Mapping[str, Any], free: Mapping[str, Any] | None) -> list[Cell]:
    copies, swaps = found["identity_share"], found["adjacent_swap_share"]
    first, bias, told = found.get("first_from"), found.get("position_bias", {}), found.get("contradictions")
    return [
        Cell(share(copies), "copies" if copies >= MOSTLY else ""),
        Cell(share(swaps), "hardly moves" if copies < MOSTLY <= copies + swaps else ""),
        _share(found["reversed_share"], MOSTLY, "reverses"),
        _share(found["commonest_order_share"], MOSTLY, "one answer for all"),
        Cell(fixed(found["kendall_tau"], 2) if "kendall_tau" in found else "–"),
        Cell(
            f"rank {first['commonest'] + 1}: {share(first['commonest_share'])}" if first else "–",
            "always that one" if first and first["commonest_share"] >= NEARLY_ALWAYS else "",
        ),
        _share(bias.get("changed_share")),
        _share(bias.get("first_changed_share"), MOSTLY, "unstable"),
        Cell(fixed(bias["slope"], 2) if "slope" in bias else "–", "by position" if bias.get("position_share", 0) >= MOSTLY else ""),
        Cell(share(1 - found["valid_share"]), "often invalid" if found["valid_share"] < FEW_VALID else ""),
        _share(1 - free["valid_share"] if free else None, MOSTLY, "needs constraints"),
        Cell(
            share(told["any_share"]) if told else "–",
            "contradicts itself" if told and any(own["share"] >= CONTRADICTS for own in told["kinds"].values()) else "",
        ),
        *(_length(found.get("lengths", {}).get(name)) for name in ("reasoning", "answer")),
    ]


def _share(number: float | None, alarm_from: float = 2.0, alarm: str = "") -> Cell:
    return Cell("–") if number is None else Cell(share(number), alarm if number >= alarm_from else "")


def _length(own: Mapping[str, Any] | None) -> Cell:
    if own is None:
        return Cell("–")
    if "shift" not in own:
        return Cell(fixed(own["mean"], 1))
    drifts = abs(own["shift"]) > DRIFT * (own["mean"] - own["shift"])
    return Cell(f"{fixed(own['mean'], 1)} ({signed(own['shift'], 1)})", "drifts" if drifts else "")


def _length_line(name: str, own: Mapping[str, Any]) -> str:
    middle = ", ".join(f"{float(at):.0%} {value:.0f}" for at, value in own["quantiles"].items())
    blocks = own["by_block"]
    return (
        f"{name}: mean {fixed(own['mean'], 1)}, longest {own['longest']:,}, quantiles {middle}; "
        f"from the first tenth of the slates to the last {fixed(blocks[0], 1)} to {fixed(blocks[-1], 1)}"
    )


def _bias_lines(bias: Mapping[str, Any]) -> list[str]:
    if "new_position" not in bias:
        return []
    places = ", ".join(fixed(place + 1, 1) for place in bias["new_position"])
    target = bias["target_rank"]
    return [
        f"{bias['n']:,} slates shown in both orders; Kendall's tau between the two answers {fixed(bias['kendall_tau'], 2)}",
        f"mean rank of the target {fixed(target['incoming'] + 1, 2)} as it came in, {fixed(target['shuffled'] + 1, 2)} shuffled",
        f"mean rank given to whatever item stands at position 1, 2 and so on: {places}",
    ]
