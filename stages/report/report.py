"""What the recorded answers say: metrics, headline, data for plots, and the page. No model is asked here."""

import csv
from pathlib import Path
from typing import Any

from stages.report.answers import RecordedAnswers, read_recorded_answers
from stages.report.diagnostics.audit import identical_to_incoming, red_flags
from stages.report.diagnostics.diagnostics import audits_of, constraint_notes, unconstrained
from stages.report.diagnostics.gain_by_rank import gains_by_incoming_rank
from stages.report.diagnostics.headroom import headroom, world_notes
from stages.report.diagnostics.logged_slates import inverse_propensity, logged_notes
from stages.report.diagnostics.quantization_gate import gate_note, quantization_gate
from stages.report.diagnostics.repeats import of_repeats
from stages.report.diagnostics.slice_kinds import kinds_of, slices_of
from stages.report.metrics_model import ReportMetrics
from stages.report.page.examples import choose_examples
from stages.report.page.page import ReportData, render, verdict
from stages.report.page.pipeline_summary import pipeline_figures
from stages.report.page.provenance import provenance, read_shown_params
from stages.report.params import ReportParams
from stages.report.plots_data import write_plots_data
from stages.shared.core.outputs import DATA, Outputs, read_json
from stages.shared.evaluation.evaluate_metrics import read_evaluate_metrics
from stages.shared.evaluation.ground_truth import load_ground_truth
from stages.shared.evaluation.rankers import PRIMARY_MODEL, QUANTIZED_MODEL, contrasts_of, distilled, models
from stages.shared.evaluation.test_set import TestSet, load_test_set, read_slate_tables, reported
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.stats.bootstrap import INCOMING, Bootstrap, RankerResults, summarise
from stages.shared.stats.metrics import order_metrics, ranks_of_targets
from stages.shared.stats.significance import significance

DECOMPOSED = ("lambdamart", "sft", PRIMARY_MODEL)
CURVES = {
    "midtrain": DATA / "midtrain/loss.csv",
    "sft": DATA / "sft/loss.csv",
    "distil": DATA / "distil/loss.csv",
    "rl": DATA / "rl/steps.csv",
}


def report(params: ReportParams, outputs: Outputs) -> None:
    evaluated = read_evaluate_metrics()
    test_set = load_test_set(reported(read_slate_tables(), evaluated.promotion_users or 0), evaluated.max_slates)
    measured = models()
    answers = read_recorded_answers(test_set, measured)
    truth = load_ground_truth(test_set)
    bootstrap = Bootstrap(test_set.users, params.resamples, params.seed)
    ranked = answers.greedy
    ranks = {name: ranks_of_targets(rankings.orders, test_set.targets) for name, rankings in ranked.items()}
    values = {name: order_metrics(rankings.orders, test_set.targets, test_set.grades) for name, rankings in ranked.items()}
    results: dict[str, RankerResults] = {
        # An invalid answer counts as the initial ranking, but is no copy of it.
        name: {
            "rank": ranks[name],
            "valid": rankings.valid,
            "identical": identical_to_incoming(rankings.orders) & rankings.valid,
            "values": values[name],
        }
        for name, rankings in ranked.items()
    }
    contrasts = contrasts_of(ranked)
    at_once = [name for name, reasons in distilled().items() if not reasons]
    # The oracle knows the target or the world: whether it is better is no question for a test.
    pairs = [(name, INCOMING) for name in ranked if name not in (INCOMING, "oracle")] + list(contrasts)
    audits = audits_of(answers, ranks, test_set.slates, layout_of(test_set.catalog), measured, at_once)
    summary = summarise(results, bootstrap, contrasts, test_set.missed)
    summary |= slices_of(results, PRIMARY_MODEL, kinds_of(test_set), bootstrap)
    summary |= {
        "leak_check": evaluated.leak_check,
        "audit": audits,
        "suspicions": {name: red_flags(audit) for name, audit in audits.items() if name in measured},
        "unconstrained": unconstrained(answers.free),
        "significance": significance(results, bootstrap, pairs),
        "gate": quantization_gate(
            ranked[PRIMARY_MODEL],
            ranked[QUANTIZED_MODEL],
            test_set.targets,
            params.gate_margin,
            bootstrap,
            read_json(DATA / "quantize/metrics.json"),
        ),
    }
    if answers.repeated:
        summary["repeats"] = repeats(answers, test_set, evaluated.repeat_temperature, bootstrap)
    if test_set.propensities is not None:
        summary["inverse_propensity"] = inverse_propensity(ranked, test_set.targets, test_set.grades, test_set.propensities, bootstrap)
    if truth:
        summary["achievable"] = headroom(ranked, truth.chances_NK, bootstrap)
    decomposed_ranks = {name: ranks[name] for name in DECOMPOSED}
    gain_by_rank = gains_by_incoming_rank(decomposed_ranks, test_set.targets, test_set.candidates_NK.shape[1], bootstrap)
    summary["verdict"] = verdict(summary, PRIMARY_MODEL)
    outputs.metrics(summary, ReportMetrics)
    write_plots_data(outputs, summary, audits, gain_by_rank)
    shown_params = read_shown_params()
    page = ReportData(
        summary=summary,
        curves={name: read_curve(path) for name, path in CURVES.items() if name != "distil" or distilled()},
        codebook_usage=read_json(DATA / "tokenize/usage.json"),
        examples=choose_examples(
            test_set.slates, ranked[PRIMARY_MODEL], ranks[PRIMARY_MODEL], test_set.catalog, params.examples, params.seed
        ),
        figures=pipeline_figures(),
        lineage=provenance(evaluated.inputs, shown_params),
        params=shown_params,
        rank_flow=audits[PRIMARY_MODEL]["rank_flow"],
        subject=PRIMARY_MODEL,
        seed=params.seed,
        audits=audits,
        gain_by_rank=gain_by_rank,
        entropy_fit=read_json(DATA / "rl/metrics.json").get("entropy_fit"),
        notes=[
            "An output that is no permutation of its slate counts as the initial ranking, and as invalid.",
            *constraint_notes(summary["unconstrained"]),
            *world_notes(summary),
            gate_note(summary["gate"]),
            *logged_notes(summary, read_json(DATA / "retrieve/metrics.json").get("given")),
        ],
    )
    outputs.path("report.html").write_text(render(page), encoding="utf-8")


def repeats(answers: RecordedAnswers, test_set: TestSet, temperature: float, bootstrap: Bootstrap) -> dict[str, Any]:
    rows = answers.repeat_rows
    greedy = {name: answers.greedy[name].at(rows) for name in answers.repeated}
    grades = None if test_set.grades is None else test_set.grades[rows]
    return of_repeats(answers.repeated, greedy, test_set.targets[rows], temperature, bootstrap.at(rows), grades)


def read_curve(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
