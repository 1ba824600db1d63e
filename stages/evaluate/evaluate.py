"""Held-out test slates: every model and baseline answers the same ones, and every answer is recorded. The stage `report` measures them."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from stages.evaluate.baselines import baselines
from stages.evaluate.features import read_features
from stages.evaluate.leak_checks import check_leaks
from stages.evaluate.models import Answers, ask_models
from stages.evaluate.params import EvaluateParams
from stages.shared.core.outputs import DATA, Outputs
from stages.shared.core.params import load_params
from stages.shared.evaluation.content_hash import content_md5
from stages.shared.evaluation.evaluate_metrics import AnswerCount, EvaluateMetrics
from stages.shared.evaluation.ground_truth import load_ground_truth
from stages.shared.evaluation.outputs_table import FREE, GREEDY, REPEATED, RESERVED, SHUFFLED, answer_rows, write_outputs
from stages.shared.evaluation.rankers import PRIMARY_MODEL, distilled, models
from stages.shared.evaluation.test_set import TestSet, load_test_set, read_slate_tables, reported, reserved
from stages.shared.recsys.embeddings import read_embeddings
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.slates.layouts.domain_rules import with_mined_rules
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.reranking.padding import relevance_array
from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.slates.slate import load_slates

# Whose hashes are recorded: what the answers depend on.
INPUTS = (
    DATA / "ingest/interactions.parquet",
    DATA / "ingest/items.parquet",
    DATA / "ingest/world.safetensors",
    DATA / "embed/embeddings.npy",
    DATA / "tokenize/sids.parquet",
    DATA / "retrieve/slates.parquet",
    DATA / "retrieve/candidate_features.parquet",
)


def evaluate(params: EvaluateParams, outputs: Outputs) -> None:
    """Writes outputs.parquet. Fails on a leak."""
    tables = read_slate_tables()
    leak_check = check_leaks(tables.slates, tables.candidate_features, tables.interactions)
    test_set = load_test_set(reported(tables, params.promotion_users), params.max_slates)
    for_promotion = load_test_set(reserved(tables, params.promotion_users), 0) if params.promotion_users else None
    train = load_slates(tables.slates, tables.candidate_features, "train")
    truth = load_ground_truth(test_set)
    ranked = baselines(
        test_set.slates,
        read_features(tables.candidate_features, test_set.slates),
        read_features(tables.candidate_features, train),
        relevance_array(train),
        test_set.counts,
        read_embeddings(len(test_set.counts)),
        params.seed,
        params.threads,
        truth.log_probabilities_NK if truth else None,
    )
    layout = layout_of(test_set.catalog, with_mined_rules(load_params("prompt", PromptParams)))
    measured = models()
    at_once = [name for name, reasons in distilled().items() if not reasons]
    answers = ask_models(test_set.slates, layout, params, measured, at_once, for_promotion.slates if for_promotion else [])
    table = outputs_table(test_set, ranked, answers, for_promotion)
    write_outputs(table, outputs.path("outputs.parquet"))
    answers.invocations.write(outputs.path("invocations.parquet"))
    metrics = EvaluateMetrics(
        slates=len(test_set.slates),
        users=len(np.unique(test_set.users)),
        max_slates=params.max_slates,
        repeat_temperature=params.repeat_temperature,
        answers=answer_counts(table),
        leak_check=leak_check,
        promotion_users=params.promotion_users or None,
        prompt_cuts=answers.prompt_cuts or None,
        inputs={path.as_posix(): content_md5(path) for path in dict.fromkeys([*INPUTS, *measured.values()])},
    )
    outputs.metrics(metrics.model_dump(exclude_none=True), EvaluateMetrics)


def outputs_table(
    test_set: TestSet, ranked: Mapping[str, Rankings], answers: Answers, for_promotion: TestSet | None = None
) -> pl.DataFrame:
    """Every answer, one row each; see outputs_table.SCHEMA. ranked: the baselines, on all slates."""
    every = range(len(test_set.slates))
    rows = [answer_rows(test_set, every, GREEDY, name, rankings) for name, rankings in [*ranked.items(), *answers.greedy.items()]]
    rows += [answer_rows(test_set, range(len(free.faults)), FREE, name, free) for name, free in answers.free.items()]
    if answers.shuffled:
        shown_NK, rankings = answers.shuffled
        rows.append(answer_rows(test_set, range(len(shown_NK)), SHUFFLED, PRIMARY_MODEL, rankings, shown_NK=shown_NK))
    for name, repeats in answers.repeated.items():
        rows += [answer_rows(test_set, answers.repeat_rows, REPEATED, name, rankings, sample) for sample, rankings in enumerate(repeats)]
    if for_promotion:
        of_reserved = range(len(for_promotion.slates))
        rows += [answer_rows(for_promotion, of_reserved, RESERVED, name, rankings) for name, rankings in answers.reserved.items()]
    return pl.concat(rows)


def answer_counts(table: pl.DataFrame) -> dict[str, dict[str, AnswerCount]]:
    """kind -> model -> how many answers were recorded, and how many of them are permutations."""
    counts: dict[str, dict[str, AnswerCount]] = {}
    grouped = table.group_by("kind", "model", maintain_order=True).agg(pl.len(), (pl.col("fault") == "").sum().alias("valid"))
    for kind, model, answers, valid in grouped.iter_rows():
        counts.setdefault(kind, {})[model] = AnswerCount(answers=answers, valid=valid)
    return counts
