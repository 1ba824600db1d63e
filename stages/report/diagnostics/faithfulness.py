"""Reasoning that contradicts its answer: what the think block says of the slate, held against the slate and the order that follows.

Read from the decoded text, special tokens kept, in the layout of stages/shared/slates/prompts.py.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from stages.report.diagnostics.audit_figures import Contradictions
from stages.shared.core.errors import StageError
from stages.shared.slates.candidate_features import FEATURES
from stages.shared.slates.prompts import END, LETTERS, STEP_BEST, STEP_MATCH, THINK_END, Catalog, PromptParams, Slate
from stages.shared.slates.sids import SID_BEGIN, SID_END

KINDS = {
    "cites_outside": "names a SID or a letter that is neither a candidate nor told in the history",
    "mislabelled": "a letter stands before another candidate's SID",
    "first_unmentioned": "the first of the answer is not in the reasoning, neither as SID nor as letter",
    "best_not_first": "the stated best is not the first of the answer",
    "strengths_disagree": "a weaker candidate stands before a stronger one in the answer",
    "strengths_changed": "the answer gives a candidate another relevance than the reasoning did",
}

_BEGIN, _CLOSE = re.escape(SID_BEGIN), re.escape(SID_END)
_SID = re.compile(rf"{_BEGIN}.*?(?:{_CLOSE}|(?={_BEGIN})|\Z)", re.DOTALL)  # one begun and never closed is cited, and fits nothing
_LETTER = re.compile(rf"(?<= )[A-Z](?= (?:s|{'|'.join(FEATURES)})\d|{_BEGIN})")  # as a candidate's name, not in a category's
_RELEVANCE = re.compile(r" ([A-Z]) s(\d+)(?!\d)")
_LABEL = re.compile(rf" ([A-Z])({_BEGIN}.*?{_CLOSE})")
_LEAD = re.compile(rf" s(\d+) ([A-Z])(?={_BEGIN})")
_BEST = re.compile(rf"(?: ([A-Z])(?!\w))?(?: \w+)*({_BEGIN}.*?{_CLOSE})?")  # letter, words, SID; any of them may be left out


@dataclass(frozen=True)
class Claims:
    """What one completion says. letters are bare ("A"); relevances: by letter, the last given; labels: (letter, SID) written together.

    best_letter, best_sid: "" where none is stated. leads: relevance by letter, as restated before the SIDs of the answer.
    """

    sids: list[str]
    letters: list[str]
    relevances: dict[str, int]
    labels: list[tuple[str, str]]
    best_letter: str
    best_sid: str
    leads: dict[str, int]


def read_claims(text: str) -> Claims:
    """text: a completion from its first token; without a closed think block all of it is reasoning."""
    reasoning, _, answer = text.partition(END)[0].partition(THINK_END)
    # Steps are looked for from the match on: the pattern before it holds categories, which are text from outside.
    match, _, best = reasoning.partition(STEP_MATCH)[2].partition(STEP_BEST)
    stated = _BEST.match(best)
    best_letter, best_sid = (stated[1] or "", stated[2] or "") if stated else ("", "")
    return Claims(
        sids=_SID.findall(reasoning),
        letters=[*_LETTER.findall(reasoning), *filter(None, [best_letter])],
        relevances={letter: int(relevance) for letter, relevance in _RELEVANCE.findall(match)},
        labels=[*_LABEL.findall(reasoning + THINK_END + answer), *([(best_letter, best_sid)] if best_letter and best_sid else [])],
        best_letter=best_letter,
        best_sid=best_sid,
        leads={letter: int(relevance) for relevance, letter in _LEAD.findall(answer)},
    )


@dataclass(frozen=True)
class Checked:
    """shown: the kinds that could be told of one answer -> whether it shows them. first_cited: its first item's SID stands in the reasoning
    (a letter names it too, so its absence is no contradiction). discordant: share of the pairs of unequal relevance that the answer has
    the wrong way round; the last two None where they could not be told."""

    shown: dict[str, bool]
    first_cited: bool | None = None
    discordant: float | None = None


def check_answer(claims: Claims, order: Sequence[int] | None, candidates: Sequence[str], history: Sequence[str]) -> Checked:
    """order: incoming ranks, best first; None for an invalid answer, of which only citations are checked.

    candidates, history: SIDs, in incoming order and of the history in the prompt.
    """
    letters = [letter.strip() for letter in LETTERS[: len(candidates)]]
    sid_of = dict(zip(letters, candidates, strict=True))
    shown = {
        "cites_outside": any(sid not in {*candidates, *history} for sid in claims.sids)
        or any(name not in sid_of for name in claims.letters),
        "mislabelled": any(sid_of.get(name, sid) != sid for name, sid in claims.labels),
    }
    if order is None:
        return Checked(shown)
    first_letter, first_sid = letters[order[0]], candidates[order[0]]
    first_cited, discordant = first_sid in claims.sids, None
    shown["first_unmentioned"] = not first_cited and first_letter not in claims.letters
    if claims.best_letter or claims.best_sid:
        shown["best_not_first"] = claims.best_letter not in ("", first_letter) or claims.best_sid not in ("", first_sid)
    given = [claims.relevances[letters[rank]] for rank in order if letters[rank] in claims.relevances]
    pairs = [earlier < later for earlier, later in combinations(given, 2) if earlier != later]
    if pairs:
        shown["strengths_disagree"] = any(pairs)
        discordant = sum(pairs) / len(pairs)
    if both := claims.relevances.keys() & claims.leads.keys():
        shown["strengths_changed"] = any(claims.relevances[letter] != claims.leads[letter] for letter in both)
    return Checked(shown, first_cited, discordant)


def contradictions(
    texts: Sequence[str],
    orders: NDArray[np.int_],
    valid: NDArray[np.bool_],
    slates: Sequence[Slate],
    catalog: Catalog,
    options: PromptParams,
) -> list[Checked]:
    """check_answer for each of a reasoning model's n answers; texts, orders, valid as in Rankings."""
    if not len(texts) == len(orders) == len(valid) == len(slates):
        raise StageError(f"{len(texts)} texts, {len(orders)} orders and {len(valid)} marks for {len(slates)} slates; check them together")
    return [
        check_answer(
            read_claims(text),
            order if good else None,
            [catalog.sids[item] for item in slate.candidates],
            [catalog.sids[item] for item in slate.history[-options.history :]],
        )
        for text, order, good, slate in zip(texts, orders.tolist(), valid.tolist(), slates, strict=True)
    ]


def summary(checked: Sequence[Checked]) -> Contradictions:
    """For JSON: any_share, answers with at least one contradiction; kinds: n, the answers it could be told of, and its share of them.

    Kinds, first_cited_share and discordant_pairs (mean share) that could be told of no answer are left out.
    """
    by_kind = {kind: [answer.shown[kind] for answer in checked if kind in answer.shown] for kind in KINDS}
    first_cited = [answer.first_cited for answer in checked if answer.first_cited is not None]
    discordant = [answer.discordant for answer in checked if answer.discordant is not None]
    figures: Contradictions = {
        "n": len(checked),
        "any_share": float(np.mean([any(answer.shown.values()) for answer in checked])) if checked else 0.0,
        "kinds": {kind: {"n": len(shown), "share": float(np.mean(shown))} for kind, shown in by_kind.items() if shown},
    }
    if first_cited:
        figures["first_cited_share"] = float(np.mean(first_cited))
    if discordant:
        figures["discordant_pairs"] = float(np.mean(discordant))
    return figures
