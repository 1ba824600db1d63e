"""What is learnt in each mode, from the slates to the saved model."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.distil.agreement import agreement, answers_of
from stages.distil.answer_rows import AT_ONCE, WITH_THOUGHTS, answer_rows, taken, taught
from stages.distil.answers import Answered, ask
from stages.distil.metrics import DistilMetrics
from stages.distil.on_policy import OnPolicy, StudentRollouts, gap, prompt_rows
from stages.distil.params import DistilParams
from stages.distil.slates import DistilSlates, read_slates
from stages.distil.teacher import check_not_shared_out, check_teacher, load_teacher, student_folder, teacher_folder
from stages.shared.core.errors import StageError
from stages.shared.core.launch import is_main_process, local_rank
from stages.shared.core.outputs import Outputs
from stages.shared.core.resume import ResumePoints
from stages.shared.generation.journal import AnswerJournal
from stages.shared.lm.encoding import WeightedExample, epochs, mixed
from stages.shared.lm.models import load_model, load_tokenizer, save_model
from stages.shared.slates.answers import Answer
from stages.shared.slates.layouts.choose import without_reasoning
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.layouts.layout import Layout
from stages.shared.training.checkpoints import training_resume
from stages.shared.training.lora import sid_and_layout_ids
from stages.shared.training.relevances import relevance_words
from stages.shared.training.trainer import TrainingObjective, train_supervised, write_curve
from stages.shared.training.validation import validation_span
from stages.shared.training.zero import shared_out

PROBE_SEED = 1_000_003  # of the rollouts before and after; those of the steps count up from other numbers


def learn(params: DistilParams, outputs: Outputs) -> None:
    slates = checked_slates(params)
    if params.mode == "on_policy":
        learn_on_policy(params, slates, outputs)
    else:
        learn_answers(params, slates, outputs)


def look_ahead(params: DistilParams) -> None:
    """All that can be refused before training, and all that models on disk are asked."""
    slates = checked_slates(params)
    if params.mode != "on_policy":
        ask_models(params, slates)


def checked_slates(params: DistilParams) -> DistilSlates:
    slates = read_slates(params)
    check_teacher(params, slates.layout, slates.catalog)
    if params.mode == "on_policy":
        check_not_shared_out(params)
    elif not slates.layout.reasoning:
        raise StageError(
            f"params.yaml: distil.mode: {params.mode} learns the answers of a model that reasons, and prompt.reasoning is false; set it to "
            "true"
        )
    return slates


def learn_on_policy(params: DistilParams, slates: DistilSlates, outputs: Outputs) -> None:
    folder = student_folder(params)
    tokenizer = load_tokenizer(folder)
    encoded = EncodedLayout(slates.layout, tokenizer)
    learnt, probed = encoded.prompts(slates.learnt), encoded.prompts(slates.probe)
    rollouts = StudentRollouts.of([*slates.learnt, *slates.probe], encoded, params)
    rows = prompt_rows([learnt[i] for i in epochs(len(learnt), params.rows_taken, np.random.default_rng(params.seed))])
    # On the GPU, where there is one, before the Trainer brings it there: what is measured first is generated.
    device = f"cuda:{local_rank()}" if torch.cuda.is_available() else "cpu"
    model, teacher = load_model(folder, device=device), load_teacher(params, device)

    first = rollouts.sample(model, probed, PROBE_SEED)  # of the student as it begins: what validation goes by
    before = gap(model, teacher, first, params, tokenizer.pad_token_id) if is_main_process() else {}
    objective = OnPolicy(teacher, rollouts, params)
    curve = trained(params, model, tokenizer, rows, first, slates, objective)
    if curve is None:
        return
    after = gap(model, teacher, rollouts.sample(model, probed, PROBE_SEED), params, tokenizer.pad_token_id)
    finish(params, outputs, slates, model, tokenizer, curve, first, encoded, {"teacher_gap": {"before": before, "after": after}})


def learn_answers(params: DistilParams, slates: DistilSlates, outputs: Outputs) -> None:
    """The modes answer_only and race."""
    asked = ask_models(params, slates)
    tokenizer = load_tokenizer(student_folder(params))
    forms = {kind: EncodedLayout(layout, tokenizer) for kind, layout in layouts(params, slates).items()}
    by_kind = taken(answer_rows(asked.learnt, params, forms), params)
    held_out = [row for rows in answer_rows(asked.probe, params, forms).values() for row in rows]
    with shared_out(params):
        model = load_model(student_folder(params))
    curve = trained(params, model, tokenizer, mixed(by_kind, [params.seed, 1]), held_out, slates)
    if curve is None:
        return
    shown = [one.slate for one in asked.probe]
    after = {kind: answers_of(model, shown, form, params) for kind, form in forms.items()}
    spans = {kind: {"before": agreement(asked.before[kind], asked.probe), "after": agreement(after[kind], asked.probe)} for kind in forms}
    more = {"rows": {kind: len(rows) for kind, rows in by_kind.items()}, "answered": asked.counts, **spans}
    finish(params, outputs, slates, model, tokenizer, curve, held_out, forms[AT_ONCE], more)


def layouts(params: DistilParams, slates: DistilSlates) -> dict[str, Layout]:
    """The forms of an answer that are taught, and in which the student is measured."""
    return {AT_ONCE: without_reasoning(slates.layout), **({WITH_THOUGHTS: slates.layout} if params.mode == "race" else {})}


@dataclass(frozen=True)
class Asked:
    """learnt, probe: the reasoning model's answers that are permutations. counts: what became of all of them. before: the student's own to
    the slates of `probe`, by form."""

    learnt: list[Answered]
    probe: list[Answered]
    counts: dict[str, int]
    before: dict[str, list[Answer]]


def ask_models(params: DistilParams, slates: DistilSlates) -> Asked:
    """From disk, and kept until the stage ends well: what was answered before a kill, or before torchrun, is not asked again."""
    journal = AnswerJournal("distil")
    everything = [*slates.learnt, *slates.probe]
    answers = ask(teacher_folder(params), everything, slates.layout, params, params.constrained, journal)
    learnt, probe = (taught(part, params) for part in (answers[: len(slates.learnt)], answers[len(slates.learnt) :]))
    counts = Counter(one.answer.fault or "valid" for one in answers)
    shown = [one.slate for one in probe]
    before = {}
    for kind, layout in layouts(params, slates).items():
        own = ask(student_folder(params), shown, layout, params, enforced=False, journal=journal)
        before[kind] = [one.answer for one in own]
    return Asked(learnt, probe, dict(counts), before)


def trained(
    params: DistilParams,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[WeightedExample],
    held_out: Sequence[WeightedExample],
    slates: DistilSlates,
    objective: TrainingObjective | None = None,
) -> list[dict[str, float]] | None:
    """The curve; None in every process but the main one, which alone has the weights under ZeRO-3 and alone writes."""
    words = relevance_words(slates.layout, tokenizer, params.relevance_spread)
    ids = sid_and_layout_ids(tokenizer)
    resume = training_resume("distil", params, rows, student_folder(params), teacher_folder(params))
    curve = train_supervised(model, rows, params, tokenizer.pad_token_id, words, ids, resume.folder, held_out, objective=objective)
    return curve if is_main_process() else None


def finish(
    params: DistilParams,
    outputs: Outputs,
    slates: DistilSlates,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    curve: Sequence[dict[str, float]],
    held_out: Sequence[WeightedExample],
    encoded: EncodedLayout,
    more: dict[str, Any],
) -> None:
    save_model(model, tokenizer, outputs.path("model"))
    write_curve(curve, outputs.path("loss.csv"))
    outputs.metrics(
        {
            "mode": params.mode,
            "slates": len(slates.learnt),
            "probe_slates": len(slates.probe),
            "steps": params.steps,
            "loss": {"first": curve[0]["loss"], "last": curve[-1]["loss"]},
            **({"validation": validation_span(curve, len(held_out))} if params.validate_steps else {}),
            **more,
            **({"prompt_cuts": dict(encoded.cuts)} if slates.layout.dialogue else {}),
            "leak_check": slates.leak_check,
        },
        DistilMetrics,
    )
    # Last: a run that fails before must find its checkpoint and its answers again.
    ResumePoints("distil", "none").clear()
