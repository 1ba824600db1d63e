"""Labels training slates with a teacher's traces, and keeps those that reach the target by more than luck."""

from collections.abc import Sequence

import polars as pl

from stages.shared.core.errors import StageError
from stages.shared.core.leakage import check_no_heldout
from stages.shared.core.outputs import DATA, Outputs
from stages.shared.core.params import load_params
from stages.shared.core.schemas import INTERACTIONS, ITEMS, SIDS, SLATES, read_table, write_table
from stages.shared.generation.journal import AnswerJournal
from stages.shared.slates.candidate_features import read_candidate_features
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.slates.layouts.domain_rules import with_mined_rules
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.slate import Catalog, Slate, load_slates
from stages.shared.slates.traces import TRACES
from stages.shared.slates.windows import training_windows
from stages.traces.audit import chance_audit, noise_audit, scorer_audit
from stages.traces.metrics import TracesMetrics
from stages.traces.open_teacher import open_teacher
from stages.traces.out_of_time import label_by_latest, score_out_of_time
from stages.traces.params import TracesParams
from stages.traces.rejection import Kept, sample


def traces(params: TracesParams, outputs: Outputs) -> None:
    catalog = Catalog.from_tables(read_table(DATA / "tokenize/sids.parquet", SIDS), read_table(DATA / "ingest/items.parquet", ITEMS))
    # Traces are made in any case: without reasoning, sft learns their answers alone.
    options = load_params("prompt", PromptParams)
    layout = layout_of(catalog, with_mined_rules(options))
    slates = load_slates(
        read_table(DATA / "retrieve/slates.parquet", SLATES),
        read_candidate_features(DATA / "retrieve/candidate_features.parquet"),
        "train",
    )
    slates = training_windows(slates, options.window, params.seed)
    if not slates:
        raise StageError("data/retrieve/slates.parquet: no training slate holds its target; train the retriever longer (retrieve.epochs)")
    leak_check = check_no_heldout(pairs_seen(slates), read_table(DATA / "ingest/interactions.parquet", INTERACTIONS), "traces")

    # The scorer of a fold has been fitted on earlier slates only; the first fold has none before it and is not labelled.
    scored = score_out_of_time(slates, params.time_folds, params.seed, params.threads, params.scorer)
    if params.labels == "latest":
        scored = label_by_latest(scored, slates, params.seed, params.threads, params.scorer)
    # In targeted mode the teacher sees the answer, so reaching it proves nothing and the rule against luck does not apply.
    max_noise_rank = params.max_noise_rank if params.mode == "rejection" else None
    # The loop runs inside the block: a language-model teacher frees its engine when the block ends.
    journal = AnswerJournal("traces")
    with open_teacher(params, layout, catalog, journal) as (teacher, record):
        shuffle_seed = params.seed if params.shuffle else None
        log = sample(teacher, layout, scored, params.attempts, params.keep, max_noise_rank, shuffle_seed)
        attempts = params.attempts if teacher.attempts is None else min(params.attempts, teacher.attempts)
    if not log.kept:
        raise StageError(
            f"no trace of {len(scored)} slates was accepted (faults: {dict(log.faults)}); raise traces.attempts or traces.max_noise_rank"
        )

    write_table(traces_table(log.kept, layout, params.mode), outputs.path("traces.parquet"), TRACES)
    record.invocations.write(outputs.path("invocations.parquet"))
    outputs.metrics(
        {
            **({"endpoint": record.endpoint} if record.endpoint else {}),
            "mode": params.mode,
            "teacher": params.teacher,
            "training_slates": len(slates),
            "sampling": chance_audit(log, scored, attempts, max_noise_rank),
            "noise": noise_audit(log.kept),
            "out_of_time": scorer_audit(scored),
            "leak_check": leak_check,
        },
        TracesMetrics,
    )
    journal.clear()


def pairs_seen(slates: Sequence[Slate]) -> pl.DataFrame:
    """Every (user, item) that fitting and labelling learn from: histories and targets."""
    rows = [(slate.user, item) for slate in slates for item in [*slate.history, slate.candidates[slate.target_rank]]]
    return pl.DataFrame(rows, schema={"user": pl.Int32, "item": pl.Int32}, orient="row")


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
                "answer": layout.answer(slate, order),
                "relevances": list(one.proposal.relevances),
                "order": list(order),
                "target_rank": slate.target_rank,
                "attempt": one.attempt,
                "mode": mode,
            }
        )
    return pl.DataFrame(rows, schema=TRACES)
