"""The end of a run in five lines: the report's first sentence, a table in three, where the page is and what to do next."""

import re
from collections.abc import Sequence

from tasks.domain.report_summary import PAGE, RankerFigures, ReportSummary

FEW_SLATES = 200  # with fewer, an interval of NDCG@5 is wider than the gains one may hope for
SHORT = "smoke"  # the profile whose runs say nothing about quality


def verdict_lines(report: ReportSummary, profiles: Sequence[str] = ()) -> list[str]:
    """profiles: those of this run's command."""
    columns = [("", "NDCG@5", "gain"), *((figures.label, _short(figures.mean), _gain(figures)) for figures in report.rankers)]
    widths = [max(map(len, column)) for column in columns]
    rows = ["  ".join(column[row].ljust(width) for column, width in zip(columns, widths, strict=True)).rstrip() for row in range(3)]
    return [report.sentence, *rows, f"The page: {PAGE}. Next: {_next(report, profiles)}"]


def _next(report: ReportSummary, profiles: Sequence[str]) -> str:
    if report.slates < FEW_SLATES:
        few = f"{report.slates} slates say that it works, not how well"
        if profiles and SHORT not in profiles:
            return f"{few}: more test slates (docs/own-data.md); gr2 power says how many it takes to see a gain."
        rest = [f"--profile {name}" for name in profiles if name != SHORT]  # data of one's own stay
        return f"{few}: gr2 run {' '.join(rest) or '--profile default'}."
    if report.clear:
        return "one seed is one draw: train others and compare (gr2 seeds); gr2 promote decides about it; your data: docs/own-data.md."
    return "gr2 power says how many slates it takes to see a gain; what was tried: docs/training.md."


def _gain(figures: RankerFigures) -> str:
    if figures.gain is None:
        return ""
    gain, low, high = figures.gain
    return f"{_short(gain, sign=True)} [{_short(low)}, {_short(high)}]"


def _short(number: float, sign: bool = False) -> str:
    """Three decimals, without the zero before the point; no negative zero."""
    rounded = round(number, 3) + 0.0
    return re.sub(r"^([+-]?)0\.", r"\1.", format(rounded, "+.3f" if sign and rounded else ".3f"))
