"""Labels training slates with a teacher's traces, and keeps those that reach the target by more than luck."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from stages.shared.core.errors import StageError
from stages.shared.core.leakage import check_no_heldout
from stages.shared.core.outputs import DATA, Outputs
from stages.shared.core.params import load_params
from stages.shared.core.schemas import INTERACTIONS, ITEMS, SIDS, read_slate_table, read_table, write_table
from stages.shared.generation.journal import AnswerJournal
from stages.shared.slates.candidate_features import read_candidate_features
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.slates.layouts.domain_rules import with_mined_rules
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.slate import Catalog, Slate, load_slates, pairs_seen
from stages.shared.slates.traces import TRACES, TRACES_WITH_WEIGHTS
from stages.shared.slates.windows import training_windows
from stages.traces.acceptance.audit import chance_audit, noise_audit, scorer_audit
from stages.traces.acceptance.checks import TraceBudget, TraceChecks
from stages.traces.acceptance.kept import Kept
from stages.traces.acceptance.rejection import RejectionLog, sample
from stages.traces.acceptance.repair import Repairs
from stages.traces.acceptance.soft import sample_softly
from stages.traces.acceptance.student_fit import apply_student_fit
from stages.traces.acceptance.verdicts import SLATE_VERDICTS, verdicts_table
from stages.traces.acceptance.verification import ShuffledVerification
from stages.traces.metrics import TracesMetrics
from stages.traces.out_of_time import ScoredSlate, label_by_latest, score_out_of_time
from stages.traces.params import TracesParams
from stages.traces.teachers.asked_teacher import AskedTeacher
from stages.traces.teachers.open_teacher import open_teacher
from stages.traces.teachers.teacher import Teacher


@dataclass
class Prepared:
    """What there is before a teacher is asked. scored: the training slates that are labelled, in order of time."""

    catalog: Catalog
    layout: Layout
    slate_table: pl.DataFrame
    slates: list[Slate]
    scored: list[ScoredSlate]
    leak_check: dict[str, int]


@dataclass
class Labelled:
    """What the teacher was asked, and what became of it."""

    log: RejectionLog
    metrics: dict[str, object]
    attempts: int
    verification: ShuffledVerification | None


def prepare(params: TracesParams) -> Prepared:
    catalog = Catalog.from_tables(read_table(DATA / "tokenize/sids.parquet", SIDS), read_table(DATA / "ingest/items.parquet", ITEMS))
    # Traces are made in any case: without reasoning, sft learns their answers alone.
    options = load_params("prompt", PromptParams)
    layout = layout_of(catalog, with_mined_rules(options))
    slate_table = read_slate_table(DATA / "retrieve/slates.parquet")
    slates = load_slates(
        slate_table,
        read_candidate_features(DATA / "retrieve/candidate_features.parquet"),
        "train",
        options.less_features,
    )
    slates = training_windows(slates, options.window, params.seed)
    if not slates:
        raise StageError("data/retrieve/slates.parquet: no training slate holds its target; train the retriever longer (retrieve.epochs)")
    leak_check = check_no_heldout(pairs_seen(slates), read_table(DATA / "ingest/interactions.parquet", INTERACTIONS), "traces")

    # The scorer of a fold has been fitted on earlier slates only; the first fold has none before it and is not labelled.
    explained = params.teacher == "ranker_explained"
    scored = score_out_of_time(slates, params.time_folds, layout, params.seed, params.threads, params.scorer, explained)
    if params.labels == "latest":
        scored = label_by_latest(scored, slates, layout, params.seed, params.threads, params.scorer, explained)
    return Prepared(catalog, layout, slate_table, slates, scored, leak_check)


def label(params: TracesParams, layout: Layout, scored: Sequence[ScoredSlate], teacher: Teacher) -> Labelled:
    """Asks `teacher` about each of `scored`, one slate as if the others were not there."""
    checks = TraceChecks(layout, params.mode == "targeted", TraceBudget.of_student(params.max_trace_tokens, params.student_fit.model))
    shuffle_seed = params.seed if params.shuffle else None
    attempts = params.attempts if teacher.attempts is None else min(params.attempts, teacher.attempts)
    verification = None
    if params.verify_shuffles:
        verification = ShuffledVerification(params.verify_shuffles, params.verify_share, attempts, params.seed)
    rules = (teacher, checks, scored, attempts, params.keep, noise_limit(params), shuffle_seed)
    metrics: dict[str, object] = {}
    if params.mode == "soft":
        log, metrics["soft"] = sample_softly(*rules, params.beta, params.seed)
    elif params.mode == "repair":
        assert isinstance(teacher, AskedTeacher)
        log = sample(*rules, verification, Repairs(teacher, checks))
        metrics["repair"] = {"continued": log.total("continued"), "kept": sum(kept.continued for kept in log.kept)}
    else:
        log = sample(*rules, verification)
    return Labelled(log, metrics, attempts, verification)


def noise_limit(params: TracesParams) -> int | None:
    """In targeted mode the teacher sees the answer, so reaching it proves nothing and the rule against luck does not apply."""
    return None if params.mode == "targeted" else params.max_noise_rank


def traces(params: TracesParams, outputs: Outputs) -> None:
    ready = prepare(params)
    catalog, layout, scored = ready.catalog, ready.layout, ready.scored
    max_noise_rank = noise_limit(params)
    # The loop runs inside the block: a language-model teacher frees its engine when the block ends.
    journal = AnswerJournal("traces")
    with open_teacher(params, layout, catalog, journal) as (teacher, record):
        labelled = label(params, layout, scored, teacher)
    log, more_metrics, attempts, verification = labelled.log, labelled.metrics, labelled.attempts, labelled.verification
    if not log.kept:
        raise StageError(
            f"no trace of {len(scored)} slates was accepted (faults: {dict(log.faults)}, luck: {log.total('luck')}, not confirmed in other "
            f"orders: {log.total('unverified')}); raise traces.attempts or traces.max_noise_rank, or lower traces.verify_shuffles"
        )

    weights: list[float] = []
    if params.student_fit.drop_below:
        weights, more_metrics["student_fit"] = apply_student_fit(log, layout, params.student_fit)
    table, schema = traces_table(log.kept, layout, params.mode), TRACES
    if params.student_fit.weight:
        table, schema = table.with_columns(weight=pl.Series(weights, dtype=pl.Float32)), TRACES_WITH_WEIGHTS
    write_table(table, outputs.path("traces.parquet"), schema)
    write_table(verdicts_table(ready.slate_table, scored, log, attempts), outputs.path("slates.parquet"), SLATE_VERDICTS)
    record.invocations.write(outputs.path("invocations.parquet"))
    outputs.metrics(
        {
            **({"endpoint": record.endpoint} if record.endpoint else {}),
            **more_metrics,
            "mode": params.mode,
            "teacher": params.teacher,
            "training_slates": len(ready.slates),
            "sampling": chance_audit(log, scored, attempts, max_noise_rank, params.shuffle, verification),
            "noise": noise_audit(log.kept),
            "out_of_time": scorer_audit(scored),
            "leak_check": ready.leak_check,
        },
        TracesMetrics,
    )
    journal.clear()


def traces_table(kept: Sequence[Kept], layout: Layout, mode: str) -> pl.DataFrame:
    """One row a kept trace; see TRACES."""
    rows = []
    for one in kept:
        slate, order = one.scored.slate, one.proposal.order
        assert order is not None
        rows.append(
            {
                "slate": slate.slate,
                "user": slate.user,
                "timestamp": slate.timestamp,
                "shown": list(one.shown),
                "prompt": layout.prompt(slate),
                "trace": one.proposal.trace,
                "answer": layout.answer(slate, order, one.proposal.cited),
                "relevances": list(one.proposal.relevances),
                "order": list(order),
                "target_rank": slate.target_rank,
                "attempt": one.attempt,
                "mode": mode,
            }
        )
    return pl.DataFrame(rows, schema=TRACES)
