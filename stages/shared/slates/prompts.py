"""The one place that knows how a slate is told to the language model, and how its answer is laid out.

    <|user|>history:SID SID taste: Drama Comedy candidates: co7 tr3 ca5 po6 re2 sc9 ASID ... BSID<|assistant|>
    <think> 1 pattern: ... 2 link: ... 3 match: A s12 B s3 ... best A co7 tr3SID</think> s12 ASID s3 BSID ...<|end|>    (in one line)

Every candidate has a letter, and its evidence stands before its SID: a small decoder binds facts, strength and SID by the letter
last seen, and answers by finding the next strength, then its letter, then the SID to copy (docs/training.md has the measurement).
Without reasoning the prompt closes the think block itself, as Qwen3 does, and the answer is the bare SIDs.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

import polars as pl
from pydantic import Field

from stages.shared.core.errors import StageError
from stages.shared.core.params import Section
from stages.shared.slates.candidate_features import FACTS, fact_words
from stages.shared.slates.sids import SID_BEGIN

USER, ASSISTANT, THINK, THINK_END, END, PAD = "<|user|>", "<|assistant|>", "<think>", "</think>", "<|end|>", "<|pad|>"
SPECIAL_TOKENS = [PAD, END, USER, ASSISTANT, THINK, THINK_END]
STRENGTHS = 32  # s0 (least) .. s31
LETTERS = [f" {letter}" for letter in ascii_uppercase]
STEP_PATTERN, STEP_LINK, STEP_MATCH, STEP_BEST = " 1 pattern:", " 2 link:", " 3 match:", " best"


class PromptParams(Section):
    """Section `prompt`: how much of a slate is told. Shared by traces, sft, rl and evaluate."""

    history: int = Field(5, ge=1, description="items of history told, most recent last")
    taste: int = Field(2, ge=0, description="commonest categories of the history that are named")
    titles: bool = Field(False, description="title and categories beside every SID (large models; a small one has no room for them)")


@dataclass(frozen=True)
class Catalog:
    """What a prompt can say about an item, by item id."""

    sids: list[str]
    titles: list[str]
    categories: list[list[str]]

    @classmethod
    def from_tables(cls, sids: pl.DataFrame, items: pl.DataFrame) -> "Catalog":
        return cls(sids.sort("item")["sid"].to_list(), items["title"].to_list(), [c or [] for c in items["categories"].to_list()])


@dataclass(frozen=True)
class Slate:
    """One slate with its evidence. `levels`: [K][facts] in the order of FACTS; `target_rank` counts from 0, and is never told."""

    slate: int
    user: int
    split: str
    timestamp: int
    history: list[int]
    candidates: list[int]
    levels: list[list[int]]
    target_rank: int


def load_slates(slates: pl.DataFrame, evidence: pl.DataFrame, split: str) -> list[Slate]:
    """The slates of `split` that hold their target, ordered by time; those marked injected or permuted like others."""
    chosen = slates.filter((pl.col("split") == split) & (pl.col("target_rank") >= 0)).sort("timestamp", "slate")
    columns = [f"{fact}_level" for fact in FACTS]
    grouped = evidence.sort("slate", "rank").group_by("slate", maintain_order=True).agg(pl.concat_list(columns).alias("levels"))
    levels = dict(grouped.iter_rows())
    rows = chosen.select("slate", "user", "split", "timestamp", "history", "candidates", "target_rank").iter_rows()
    return [Slate(slate, user, part, time, past, found, levels[slate], rank) for slate, user, part, time, past, found, rank in rows]


def taste_words(history: Sequence[int], catalog: Catalog, count: int) -> list[str]:
    """The commonest categories of the history, ties by name."""
    counts = Counter(category for item in history for category in catalog.categories[item])
    return sorted(counts, key=lambda category: (-counts[category], category))[:count]


def item_text(item: int, catalog: Catalog, titles: bool) -> str:
    if not titles:
        return catalog.sids[item]
    return f"{catalog.sids[item]} {catalog.titles[item]} ({', '.join(catalog.categories[item])})\n"


def letters(count: int) -> list[str]:
    """The words that name `count` candidates, in incoming order."""
    if count > len(LETTERS):
        raise StageError(f"a slate of {count} candidates: the prompt has letters for {len(LETTERS)} at most; lower retrieve.candidates")
    return LETTERS[:count]


def slate_prompt(slate: Slate, catalog: Catalog, options: PromptParams, reasoning: bool = True) -> str:
    """Everything before the model's first token. With `reasoning` the think block is left open."""
    history = "".join(item_text(item, catalog, options.titles) for item in slate.history[-options.history :])
    taste = "".join(f" {word}" for word in taste_words(slate.history, catalog, options.taste))
    candidates = "".join(
        f" {' '.join(fact_words(levels))}{letter}{item_text(item, catalog, options.titles)}"
        for letter, item, levels in zip(letters(len(slate.candidates)), slate.candidates, slate.levels, strict=True)
    )
    opening = THINK if reasoning else THINK + THINK_END
    return f"{USER}history:{history} taste:{taste} candidates:{candidates}{ASSISTANT}{opening}"


def trace_text(slate: Slate, catalog: Catalog, options: PromptParams, strengths: Sequence[int], linked: int, best: Sequence[str]) -> str:
    """A trace in the three steps of GR2: the pattern of the history, the candidate most linked to it, then the match of each candidate.

    strengths: one of 0..31 a candidate, in incoming order. linked: the candidate (incoming rank) named in step 2, with its
    co-occurrence. best: fact words of the strongest candidate that speak for it most. All words cited stand in the prompt.
    """
    taste = "".join(f" {word}" for word in taste_words(slate.history, catalog, options.taste))
    names = letters(len(slate.candidates))
    link = f" co{slate.levels[linked][0]}{names[linked]}{catalog.sids[slate.candidates[linked]]}"
    match = "".join(f"{name} s{strength}" for name, strength in zip(names, strengths, strict=True))
    first = order_of(strengths)[0]
    reason = f"{names[first]}{''.join(f' {word}' for word in best)}{catalog.sids[slate.candidates[first]]}"
    return f"{STEP_PATTERN}{taste}{STEP_LINK}{link}{STEP_MATCH}{match}{STEP_BEST}{reason}"


def answer_text(order: Sequence[int], slate: Slate, catalog: Catalog, strengths: Sequence[int] | None = None) -> str:
    """order: incoming ranks, best first. After reasoning each SID is led by its strength and letter, the words that find it."""
    names = letters(len(slate.candidates))
    words = [f" s{strengths[rank]}{names[rank]}" if strengths else "" for rank in order]
    return "".join(word + catalog.sids[slate.candidates[rank]] for word, rank in zip(words, order, strict=True)) + END


def order_of(strengths: Sequence[int]) -> list[int]:
    """Incoming ranks by falling strength; equals keep the incoming order."""
    return sorted(range(len(strengths)), key=lambda rank: (-strengths[rank], rank))


def distinct(levels: Sequence[int], utilities: Sequence[float]) -> list[int]:
    """Strengths in the order of `utilities` (ties: incoming order), no two alike, as near to `levels` (0..31, same order) as one sweep
    from the best down leaves them.

    Two candidates of one strength would make the answer depend on which of them has been named, a far harder thing to learn than
    "the next strength below" (docs/training.md).
    """
    order = sorted(range(len(levels)), key=lambda rank: (-utilities[rank], rank))
    strengths = [0] * len(levels)
    above = STRENGTHS
    for place, rank in enumerate(order):
        below = len(order) - 1 - place  # so many must find room under this one
        above = max(min(levels[rank], above - 1), below)
        strengths[rank] = above
    return strengths


def template_words() -> list[str]:
    """Every word of the layout, for a vocabulary learnt from scratch: each shall be one token."""
    facts = [f" {fact}{level}" for fact in FACTS for level in range(10)]
    strengths = [f" s{strength}" for strength in range(STRENGTHS)]
    layout = ["history:", " taste:", " candidates:", " 1", " pattern:", " 2", " link:", " 3", " match:", " best", "title:", "item:"]
    return [*facts, *strengths, *LETTERS, *layout]


def without_reasoning(prompt: str, answer: str) -> tuple[str, str]:
    """The same example for a model that must answer at once: an empty think block, and an answer of bare SIDs."""
    return prompt + THINK_END, re.sub(rf" s\d+ [A-Z](?={re.escape(SID_BEGIN)})", "", answer)
