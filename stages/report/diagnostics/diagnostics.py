"""What every ranker does beyond its score: its audit, and how the models fare without the constraint."""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from stages.report.answers import RecordedAnswers
from stages.report.diagnostics import faithfulness
from stages.report.diagnostics.audit import audit, invalid_by_kind, lengths
from stages.report.diagnostics.audit_figures import Audit, FreeAnswers
from stages.shared.evaluation.rankers import PRIMARY_MODEL, REFERENCE_MODEL
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.slates.slate import Slate
from stages.shared.slates.windows import in_windows


def audits_of(
    answers: RecordedAnswers,
    ranks: Mapping[str, NDArray[np.int_]],
    slates: list[Slate],
    layout: Layout,
    models: Collection[str],
    at_once: Collection[str] = (),
) -> dict[str, Audit]:
    """Of every ranker its audit; of a model also what its texts say, and their lengths beside those of REFERENCE_MODEL; of PRIMARY_MODEL
    its position bias. at_once: models that were asked without reasoning, whatever the layout says."""
    targets, sizes = (np.array(values) for values in zip(*((slate.target_rank, len(slate.candidates)) for slate in slates), strict=True))
    audits = {name: audit(rankings.orders, targets, ranks[name], rankings.faults, sizes) for name, rankings in answers.greedy.items()}
    reference = answers.greedy[REFERENCE_MODEL]
    for name in models:
        reasons = layout.reasoning and name not in at_once
        rankings, model_audit = answers.greedy[name], audits[name]
        model_audit["lengths"] = {"answer": lengths(rankings.answer_tokens, reference.answer_tokens)}
        # Without a think block there is no claim that the answer could contradict.
        if reasons:
            model_audit["lengths"]["reasoning"] = lengths(rankings.reasoning_tokens, reference.reasoning_tokens)
        # The windows of a long slate name other candidates by the same letters.
        if reasons and not in_windows(slates, layout.options.window):
            checked = faithfulness.contradictions(rankings.texts, rankings.orders, rankings.valid, slates, layout)
            model_audit["contradictions"] = faithfulness.summary(checked)
    if answers.bias:
        audits[PRIMARY_MODEL]["position_bias"] = answers.bias.summary()
    return audits


def unconstrained(free: Mapping[str, Rankings]) -> dict[str, FreeAnswers]:
    """What the constraint hides: how often each model gives a permutation without it, and why not."""
    return {
        name: {"n": len(rankings.faults), "valid_share": float(rankings.valid.mean()), "invalid": invalid_by_kind(rankings.faults)}
        for name, rankings in free.items()
    }


def constraint_notes(free: Mapping[str, FreeAnswers]) -> list[str]:
    if not free:
        return []
    shares = ", ".join(f"{name} {entry['valid_share']:.1%}" for name, entry in free.items())
    count = next(iter(free.values()))["n"]
    return [f"Answers are decoded under constraints that leave only permutations. Freely, on {count} of the slates, valid were: {shares}."]
