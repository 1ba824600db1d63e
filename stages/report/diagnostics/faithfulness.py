"""Reasoning that contradicts its answer: what the think block says of the slate, held against the slate and the order that follows.

Read from the decoded text, special tokens kept, by the layout that wrote the prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from stages.report.diagnostics.audit_figures import Contradictions
from stages.shared.core.errors import StageError
from stages.shared.slates.layouts.layout import Claims, Layout
from stages.shared.slates.layouts.marks import letters
from stages.shared.slates.slate import Slate

KINDS = {
    "cites_outside": "names a SID or a letter that the prompt does not show",
    "misquotes": "restates a feature of a candidate otherwise than the prompt",
    "first_unmentioned": "the first of the answer is not in the reasoning",
    "relevances_disagree": "a less relevant candidate stands before a more relevant one in the answer",
}


@dataclass(frozen=True)
class Checked:
    """shown: the kinds that could be told of one answer -> whether it shows them. discordant: share of the pairs of unequal relevance that
    the answer has the wrong way round; None where it could not be told."""

    shown: dict[str, bool]
    discordant: float | None = None


def check_answer(claims: Claims, order: Sequence[int] | None, slate: Slate, shown_sids: Sequence[str]) -> Checked:
    """order: ranks as shown, best first; None for an invalid answer, of which only citations are checked.

    slate: as it was shown; shown_sids: of its candidates and of the history in the prompt.
    """
    names = [letter.strip() for letter in letters(len(slate.candidates))]
    features = {name: slate.words(rank) for rank, name in enumerate(names)}
    shown = {
        "cites_outside": any(sid not in shown_sids for sid in claims.sids) or any(name not in features for name in claims.letters),
        "misquotes": any(claims.misquotes(name, features[name]) for name in claims.quotes if name in features),
    }
    # An invalid answer has no order that its reasoning could disagree with.
    if order is None:
        return Checked(shown)
    shown["first_unmentioned"] = names[order[0]] not in claims.letters
    relevances = [claims.relevances[names[rank]] for rank in order if names[rank] in claims.relevances]
    # Equal relevances allow either order; what was cut off before its relevance is left out.
    pairs = [earlier < later for earlier, later in combinations(relevances, 2) if earlier != later]
    if not pairs:
        return Checked(shown)
    return Checked(shown | {"relevances_disagree": any(pairs)}, sum(pairs) / len(pairs))


def contradictions(
    texts: Sequence[str],
    orders: NDArray[np.int_],
    valid: NDArray[np.bool_],
    slates: Sequence[Slate],
    layout: Layout,
) -> list[Checked]:
    """check_answer for each of a reasoning model's n answers; texts, orders, valid as in Rankings."""
    if not len(texts) == len(orders) == len(valid) == len(slates):
        raise StageError(f"{len(texts)} texts, {len(orders)} orders and {len(valid)} marks for {len(slates)} slates; check them together")
    return [
        check_answer(layout.claims(text), order[: len(slate.candidates)] if is_valid else None, slate, layout.shown_sids(slate))
        for text, order, is_valid, slate in zip(texts, orders.tolist(), valid.tolist(), slates, strict=True)
    ]


def summary(checked: Sequence[Checked]) -> Contradictions:
    """For JSON: any_share, answers with at least one contradiction; kinds: n, the answers it could be told of, and its share of them.

    Kinds and discordant_pairs (mean share) that could be told of no answer are left out.
    """
    # The share is of those answers in which this kind could be told, not of all.
    by_kind = {kind: [answer.shown[kind] for answer in checked if kind in answer.shown] for kind in KINDS}
    discordant = [answer.discordant for answer in checked if answer.discordant is not None]
    figures: Contradictions = {
        "n": len(checked),
        "any_share": float(np.mean([any(answer.shown.values()) for answer in checked])) if checked else 0.0,
        "kinds": {kind: {"n": len(shown), "share": float(np.mean(shown))} for kind, shown in by_kind.items() if shown},
    }
    if discordant:
        figures["discordant_pairs"] = float(np.mean(discordant))
    return figures
