"""The report: one HTML page that says what was measured, shows it, and where the model came from. Nothing in it loads from elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from stages.report.diagnostics.audit_figures import Audit
from stages.report.page import audit_table, plots, rl_plots, sections
from stages.report.page.provenance import Link
from stages.report.page.svg import fixed, label, metric_label, share, signed
from stages.shared.stats.bootstrap import INCOMING
from stages.shared.stats.metrics import NAMES

HEADLINE = "ndcg@5"
COLUMNS = (HEADLINE, *(name for name in NAMES if name != HEADLINE))
# Curves the report knows: title of the plot and the CSV column it shows beside `step`.
CURVES = {
    "midtrain": ("Mid-training: loss", "loss"),
    "sft": ("SFT: loss", "loss"),
    "distil": ("Distillation: loss", "loss"),
    "rl": ("RL: mean reward of the group", "reward"),
}


@dataclass(frozen=True)
class Row:
    """One candidate of an example slate. Ranks count from 0; the page shows them from 1."""

    title: str
    genres: str
    incoming_rank: int
    new_rank: int
    features: str
    is_target: bool


@dataclass(frozen=True)
class Example:
    """One slate as the model saw and answered it. rows stand in initial ranking; history is oldest first."""

    history: list[str]
    rows: list[Row]
    reasoning: str
    valid: bool
    note: str = ""
    group: str = ""  # key of sections.GROUPS


@dataclass(frozen=True)
class ReportData:
    """All that the page shows; `render` computes nothing but plots and sentences."""

    summary: dict[str, Any]  # metrics.json, see bootstrap.summarise
    curves: Mapping[str, Sequence[Mapping[str, Any]]]  # key of CURVES -> rows of its CSV file, numbers or text
    codebook_usage: list[list[int]]  # items per code, by level
    examples: list[Example]
    figures: Mapping[str, Mapping[str, float | str]]  # heading -> name -> value, shown in the order given
    lineage: list[Link]
    params: dict[str, Any]
    rank_flow: list[list[int]]  # [K, K], see audit.rank_flow
    seed: int
    subject: str = "rl"  # the model the verdict, the rank flow and the examples are about
    shipped: str = "quantized"
    audits: Mapping[str, Audit] = field(default_factory=dict)  # model -> audit.audit
    notes: list[str] = field(default_factory=list)  # what a reader of the tables must know, such as how invalid outputs are scored
    command: str = "gr2 run"
    gain_by_rank: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)  # model -> gain_by_rank.gains_by_incoming_rank
    entropy_fit: Mapping[str, float] | None = None  # of data/rl/metrics.json


def render(data: ReportData) -> str:
    """The page. Equal data gives equal bytes."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        # Titles and model outputs are text from outside: on the page they must not become HTML.
        autoescape=True,
        # A misspelt name in the template is an error, not an empty place on the page.
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "fixed": fixed,
        "signed": signed,
        "value": value,
        "share": share,
        "yaml": _yaml,
        "model": label,
        "zip": zip,
        "standing": standing,
        "slice_kind": _slice_kind,
    }
    environment.globals |= {"metric_label": metric_label, "standing": standing}
    return environment.get_template("template.html.j2").render(
        data=data,
        models=data.summary["models"],
        contrasts=[(*name.split("-"), entry) for name, entry in data.summary["contrasts"].items()],
        columns=COLUMNS,
        controls=sections.control_notices(data.params, data.summary, data.subject, HEADLINE),
        gain_by_rank=Markup(plots.gain_by_rank(data.gain_by_rank, len(data.rank_flow))) if data.gain_by_rank else "",
        decomposed_metric=sections.METRIC,
        decompositions=sections.decomposition_sentences(data.gain_by_rank),
        repeats=data.summary.get("repeats", {}),
        audit_columns=audit_table.COLUMNS,
        audit_rows=audit_table.audit_rows(data.audits, data.summary.get("unconstrained", {})),
        audit_details={
            name: (
                data.summary.get("suspicions", {}).get(name, []),
                audit_table.audit_details(audit, data.summary.get("unconstrained", {}).get(name)),
            )
            for name, audit in data.audits.items()
        },
        examples=sections.grouped(data.examples),
        slices=data.summary.get("slices", {}),
        headline=HEADLINE,
        verdict=verdict(data.summary, data.subject, data.shipped),
        plots=_plots(data),
    )


def verdict(summary: Mapping[str, Any], subject: str = "rl", shipped: str = "quantized") -> list[str]:
    """What the numbers allow one to say, in sentences; the first is the headline."""
    models = summary["models"]
    entry, incoming = models[subject], models[INCOMING]
    metric = metric_label(HEADLINE)
    sentence = {"above": "beats the initial ranking", "below": "is worse than the initial ranking"}.get(
        standing(entry[HEADLINE]), "does not beat the initial ranking"
    )
    copied_share = entry["identity_share"]
    lines = [
        f"The {label(subject)} model {sentence} at 95 % confidence: {metric} {fixed(entry[HEADLINE]['mean'])} against "
        f"{fixed(incoming[HEADLINE]['mean'])}, a difference of {_gap(entry[HEADLINE])}, on {entry['n']:,} held-out slates of "
        f"{summary['users']:,} users."
    ]
    for name, contrast in summary["contrasts"].items():
        first, second = (label(part) for part in name.split("-"))
        relation = {"above": "is better than", "below": "is worse than"}.get(standing(contrast[HEADLINE]), "cannot be told apart from")
        lines.append(f"{first} {relation} {second}: {_gap(contrast[HEADLINE])}.")
    if shipped in models and shipped != subject:
        standing_words = {"above": "is above", "below": "is below"}.get(standing(models[shipped][HEADLINE]), "cannot be told apart from")
        lines.append(
            f"The model that would be deployed ({label(shipped)}) {standing_words} the initial ranking: {_gap(models[shipped][HEADLINE])}."
        )
    if "lambdamart" not in models:
        lines.append("LambdaMART was not measured here, so nothing is said about it.")
    # Beside the headline, where it cannot be overlooked: a copy scores as well as the retriever.
    if copied_share > 0.5 and subject != INCOMING:
        lines.append(f"Mind that {label(subject)} repeats the initial ranking on {share(copied_share)} of the slates.")
    if entry["valid_share"] < 0.99:
        lines.append(f"Only {share(entry['valid_share'])} of the outputs of {label(subject)} are valid permutations.")
    return lines


def standing(metric: Mapping[str, Any]) -> str:
    """Of a difference with its interval: above, below, or unclear (the interval holds zero)."""
    low, high = metric["diff_ci"]
    return "above" if low > 0 else "below" if high < 0 else "unclear"


def value(item: float | str) -> str:
    """A figure of the pipeline: counts in full, other numbers to four digits."""
    if isinstance(item, bool) or not isinstance(item, int | float):
        return str(item)
    return f"{item:,}" if isinstance(item, int) else f"{item:.4g}"


def _slice_kind(kind: str) -> str:
    """As a heading. The key in metrics.json keeps the name of earlier releases; readers know it as the initial rank."""
    return kind.replace("incoming", "initial").replace("_", " ").capitalize()


def _gap(metric: Mapping[str, Any]) -> str:
    low, high = metric["diff_ci"]
    return f"{signed(metric['diff'])} [{signed(low)}, {signed(high)}]"


def _yaml(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(values), sort_keys=True, allow_unicode=True)


def _plots(data: ReportData) -> dict[str, Markup]:
    """Caption -> SVG. Ours, with every label escaped by the SVG writer, hence Markup."""
    models, subject = data.summary["models"], label(data.subject)
    gain = "Gain over the initial ranking with its 95 % interval. Green lies clear above zero, red clear below, grey is undecided."
    recall = "How often the target is among the first 1, 3 and 5. Dashed: a random order."
    flow = f"Where {subject} moves the target. Outlined: left where it was; left of the outline: lifted."
    svg_by_caption = {
        gain: plots.forest(models, HEADLINE),
        recall: plots.recall_bars(models, len(data.rank_flow)),
        flow: plots.rank_flow(data.rank_flow),
    }
    for key, (title, column) in CURVES.items():
        if key in data.curves:
            svg_by_caption[f"{title}; thin: every step, thick: running mean."] = plots.curve(data.curves[key], column, title, key)
    rl_curve = data.curves.get("rl", [])
    if svg := rl_plots.behaviour(rl_curve):
        svg_by_caption["RL: what the policy does, of all answers sampled at a step. Probes and validations: where they were made."] = svg
    if data.entropy_fit and (svg := rl_plots.entropy(rl_curve, data.entropy_fit)):
        svg_by_caption[rl_plots.entropy_caption(data.entropy_fit)] = svg
    if data.codebook_usage:
        svg_by_caption["Codebook usage of the semantic IDs, items per code. Dashed: all codes used alike."] = plots.codebook_usage(
            data.codebook_usage
        )
    return {caption: Markup(svg) for caption, svg in svg_by_caption.items()}
