"""The report in small, for the end of a run: its first sentence, and the figures of a few rankers."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.project.graph import Graph

FOLDER = Path("data") / "report"
METRICS, HEADLINE, PAGE = FOLDER / "metrics.json", FOLDER / "headline.json", FOLDER / "report.html"
METRIC = "ndcg@5"
SUBJECT = "rl"  # the model that the report's first sentence is about
LABELS = {
    "incoming": "initial ranking",
    "lambdamart": "LambdaMART",
    "sft": "SFT",
    "distil": "distilled",
    "rl": "RL",
    "quantized": "quantized",
}


@dataclass(frozen=True)
class RankerFigures:
    """`mean` of NDCG@5; `gain` over the initial ranking with `low` and `high`, its 95 % interval (None: the initial ranking itself)."""

    label: str
    mean: float
    gain: tuple[float, float, float] | None


@dataclass(frozen=True)
class ReportSummary:
    """`clear`: whether the gain of the report's subject is clear above zero."""

    sentence: str
    slates: int
    rankers: tuple[RankerFigures, ...]
    clear: bool


def reported_by(graph: Graph) -> str:
    """The stage that writes the report; empty in a pipeline that has none."""
    stage = graph.producer(str(METRICS))
    return stage.name if stage else ""


def read_report(root: Path) -> ReportSummary | None:
    """None where there is no report, or one that another version of its stage wrote: a run is not to fail for it."""
    try:
        metrics, headline = (json.loads((root / path).read_text(encoding="utf-8")) for path in (METRICS, HEADLINE))
        rankers = {name: _figures(label, headline[name]) for name, label in LABELS.items() if name in headline}
        gain = rankers[SUBJECT].gain
        return ReportSummary(str(metrics["verdict"][0]), int(metrics["slates"]), tuple(rankers.values()), bool(gain and gain[1] > 0))
    # The run is over and its stages are recorded: a summary that cannot be read is no reason to call it failed.
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None


def _figures(label: str, values: dict[str, Any]) -> RankerFigures:
    gain = (float(values["diff"]), float(values["diff_low"]), float(values["diff_high"])) if "diff" in values else None
    return RankerFigures(label, float(values[METRIC]), gain)
