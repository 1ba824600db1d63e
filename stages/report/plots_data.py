"""What `dvc plots` and `dvc metrics` compare between runs: small tables and the headline, beside the report. Ranks count from 1 here."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.report.diagnostics.gain_by_rank import METRIC
from stages.shared.core.outputs import Outputs, write_json
from stages.shared.stats.bootstrap import INCOMING
from stages.shared.stats.metrics import METRICS

Audits = Mapping[str, Mapping[str, Any]]
GainByRank = Mapping[str, Sequence[Mapping[str, Any]]]


def write_plots_data(outputs: Outputs, summary: Mapping[str, Any], audits: Audits, gain_by_rank: GainByRank) -> None:
    """headline.json and the folder plots. summary, audits: of metrics.json; gain_by_rank: gain_by_rank.gains_by_incoming_rank."""
    write_json(outputs.path("headline.json"), headline(summary))
    _write_csv(outputs.path("plots/metrics.csv"), ["ranker", "metric", "mean", "diff", "low", "high"], metric_rows(summary))
    _write_csv(outputs.path("plots/gain_by_incoming_rank.csv"), GAIN_COLUMNS, gain_rows(gain_by_rank))
    _write_csv(outputs.path("plots/rank_flow.csv"), ["ranker", "incoming_rank", "new_rank", "slates", "share"], flow_rows(audits))


def headline(summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """ranker -> its means, and but for the initial ranking the difference from it in METRIC with the 95 % interval."""
    figures = {}
    for name, entry in summary["models"].items():
        figures[name] = {metric: entry[metric]["mean"] for metric in (METRIC, "recall@1")}
        # Its difference from itself is 0 with an interval of 0, which only clutters `dvc metrics diff`.
        if name != INCOMING:
            low, high = entry[METRIC]["diff_ci"]
            figures[name] |= {"diff": entry[METRIC]["diff"], "diff_low": low, "diff_high": high}
    return figures


def metric_rows(summary: Mapping[str, Any]) -> Iterable[list[Any]]:
    """low and high: the 95 % interval of the difference from the initial ranking."""
    for name, entry in summary["models"].items():
        for metric in METRICS:
            if metric in entry:
                yield [name, metric, entry[metric]["mean"], entry[metric]["diff"], *entry[metric]["diff_ci"]]


_KINDS = {"rank_gain": "gain", METRIC: "ndcg"}
_PARTS = ("diff", "low", "high", "lower", "upper", "random")
GAIN_COLUMNS = ["ranker", "incoming_rank", "slates", *(f"{kind}_{part}" for kind in _KINDS.values() for part in _PARTS), "ndcg_part"]


def gain_rows(gain_by_rank: GainByRank) -> Iterable[list[Any]]:
    """An interval that could not be told is left empty."""
    for name, rows in gain_by_rank.items():
        for row in rows:
            figures = []
            for kind in _KINDS:
                entry = row[kind]
                figures += [entry["diff"], *(entry["diff_ci"] or ("", "")), entry["lower"], entry["upper"], entry["random"]]
            yield [name, row["incoming_rank"] + 1, row["n"], *figures, row["part"]]


def flow_rows(audits: Audits) -> Iterable[list[Any]]:
    """share: of the slates whose target came in at that rank. The initial ranking moves nothing and is left out."""
    for name, audit in audits.items():
        if name == INCOMING:
            continue
        for incoming, counts in enumerate(audit["rank_flow"]):
            for new, count in enumerate(counts):
                yield [name, incoming + 1, new + 1, count, count / max(1, sum(counts))]


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        # The csv module's default is \r\n; every other text file of the project has \n.
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
