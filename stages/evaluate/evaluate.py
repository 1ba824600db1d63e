"""Held-out test slates: every model and comparator on the same ones, paired with the incoming order; then the report."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from stages.evaluate.baselines import comparators
from stages.evaluate.models import CONTRASTS, MODELS, SUBJECT, Answers, ask_models
from stages.evaluate.params import EvaluateParams
from stages.evaluate.test_set import HeldOut, load_held_out
from stages.evaluate.write_outputs import outputs_table
from stages.report.diagnostics.audit import identical_to_incoming, suspicions
from stages.report.diagnostics.diagnostics import audits_of, constraint_notes, unconstrained
from stages.report.diagnostics.gain_by_rank import gains_by_incoming_rank
from stages.report.diagnostics.headroom import achievable, load_truth, world_notes
from stages.report.diagnostics.repeats import of_repeats
from stages.report.diagnostics.slice_kinds import kinds_of, slices_of
from stages.report.page.examples import choose_examples
from stages.report.page.model_lineage import model_lineage
from stages.report.page.page import ReportData, render
from stages.report.page.pipeline_summary import pipeline_figures
from stages.report.plots_data import write_plots_data
from stages.shared.core.outputs import DATA, Outputs, read_json
from stages.shared.core.params import load_params
from stages.shared.recsys.embeddings import read_embeddings
from stages.shared.slates.prompts import PromptParams
from stages.shared.stats.bootstrap import INCOMING, summarise
from stages.shared.stats.metrics import ranks_of_targets
from stages.shared.stats.significance import significance

CALIBRATED = ("lambdamart", "sft", SUBJECT)
CURVES = {
    "midtrain": DATA / "midtrain/loss.csv",
    "sft": DATA / "sft/loss.csv",
    "no_reasoning": DATA / "sft/no_reasoning_loss.csv",
    "rl": DATA / "rl/steps.csv",
}


def evaluate(params: EvaluateParams, outputs: Outputs) -> None:
    options = load_params("prompt", PromptParams)
    held = load_held_out(params.max_slates)
    truth = load_truth(held)
    compared = comparators(
        held.slates,
        held.features_NKF,
        held.train_features_MKF,
        np.array([slate.target_rank for slate in held.train]),
        held.counts,
        read_embeddings(len(held.counts)),
        params.seed,
        params.threads,
        truth.log_probabilities_NK if truth else None,
    )
    answers = ask_models(held.slates, held.catalog, options, params)
    judged = compared | answers.greedy
    ranks = {name: ranks_of_targets(own.orders, held.targets) for name, own in judged.items()}
    results = {
        name: {"rank": ranks[name], "valid": own.valid, "identical": identical_to_incoming(own.orders) & own.valid}
        for name, own in judged.items()
    }
    pairs = [(name, INCOMING) for name in judged if name not in (INCOMING, "oracle")] + list(CONTRASTS)
    audits = audits_of(judged, ranks, answers, held.slates, held.catalog, options)
    summary = summarise(results, held.users, params.resamples, params.seed, CONTRASTS, held.missed)
    summary |= slices_of(ranks, SUBJECT, kinds_of(held), held.users, params.resamples, params.seed)
    summary |= {
        "leak_check": held.leak_check,
        "audit": audits,
        "suspicions": {name: suspicions(own) for name, own in audits.items() if name in MODELS},
        "unconstrained": unconstrained(answers.free),
        "significance": significance(results, held.users, pairs, params.resamples, params.seed),
    }
    if answers.repeated:
        summary["repeats"] = repeats(answers, held, params)
    if truth:
        summary["achievable"] = achievable(judged, truth.chances_NK, held.users, params.resamples, params.seed)

    shown = {name: ranks[name] for name in CALIBRATED}
    calibration = gains_by_incoming_rank(shown, held.targets, held.users, held.candidates_NK.shape[1], params.resamples, params.seed)

    outputs.metrics(summary)
    write_plots_data(outputs, summary, audits, calibration)
    outputs_table(held, judged, ranks).write_parquet(outputs.path("outputs.parquet"))
    report = ReportData(
        summary=summary,
        curves={name: read_curve(path) for name, path in CURVES.items()},
        codebook_usage=read_json(DATA / "tokenize/usage.json"),
        examples=choose_examples(held.slates, judged[SUBJECT], ranks[SUBJECT], held.catalog, params.examples, params.seed),
        figures=pipeline_figures(),
        lineage=model_lineage(),
        params=yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8")),
        rank_flow=audits[SUBJECT]["rank_flow"],
        subject=SUBJECT,
        seed=params.seed,
        audits=audits,
        calibration=calibration,
        notes=[
            "An output that is no permutation of its slate counts as the incoming order, and as invalid.",
            *constraint_notes(summary["unconstrained"]),
            *world_notes(summary),
        ],
    )
    outputs.path("report.html").write_text(render(report), encoding="utf-8")


def repeats(answers: Answers, held: HeldOut, params: EvaluateParams) -> dict[str, Any]:
    rows = answers.repeat_rows
    greedy = {name: answers.greedy[name].at(rows) for name in answers.repeated}
    return of_repeats(
        answers.repeated, greedy, held.targets[rows], held.users[rows], params.repeat_temperature, params.resamples, params.seed
    )


def read_curve(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
