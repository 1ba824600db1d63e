"""The one place that knows how a slate is written for the language model, and how its answer is laid out.

    <|user|>history:SID SID taste: Drama Comedy candidates: co7 tr3 ca5 po6 re2 sc9 ASID ... BSID<|assistant|>
    <think> 1 pattern: ... 2 link: ... 3 match: A s12 B s3 ... best A co7 tr3SID</think> s12 ASID s3 BSID ...<|end|>    (in one line)

Every candidate has a letter, and its features come before its SID: a small decoder binds features, relevance and SID by the letter
last seen, and answers by finding the next relevance, then its letter, then the SID to copy (docs/training.md has the measurement).
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
from stages.shared.slates.candidate_features import FEATURES, feature_tokens
from stages.shared.slates.sids import SID_BEGIN

USER, ASSISTANT, THINK, THINK_END, END, PAD = "<|user|>", "<|assistant|>", "<think>", "</think>", "<|end|>", "<|pad|>"
SPECIAL_TOKENS = [PAD, END, USER, ASSISTANT, THINK, THINK_END]
RELEVANCE_LEVELS = 32  # s0 (least) .. s31; the tokens are named after the word "strength" and stay, since models know them
LETTERS = [f" {letter}" for letter in ascii_uppercase]
STEP_PATTERN, STEP_LINK, STEP_MATCH, STEP_BEST = " 1 pattern:", " 2 link:", " 3 match:", " best"


class PromptParams(Section):
    """Section `prompt`: how much of a slate the prompt shows. Shared by traces, sft, rl and evaluate."""

    history: int = Field(5, ge=1, description="items of history in the prompt, most recent last")
    top_categories: int = Field(2, ge=0, description="commonest categories of the history that are named")
    titles: bool = Field(False, description="title and categories after every SID (large models; a small one has no room for them)")


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
    """One slate with its candidate features. `bins`: [K][features] in the order of FEATURES; `target_rank` counts from 0 and is in no
    prompt."""

    slate: int
    user: int
    split: str
    timestamp: int
    history: list[int]
    candidates: list[int]
    bins: list[list[int]]
    target_rank: int


def load_slates(slates: pl.DataFrame, feature_table: pl.DataFrame, split: str) -> list[Slate]:
    """The slates of `split` that hold their target, ordered by time; those marked injected or permuted like others."""
    chosen = slates.filter((pl.col("split") == split) & (pl.col("target_rank") >= 0)).sort("timestamp", "slate")
    columns = [f"{feature}_bin" for feature in FEATURES]
    grouped = feature_table.sort("slate", "rank").group_by("slate", maintain_order=True).agg(pl.concat_list(columns).alias("bins"))
    bins = dict(grouped.iter_rows())
    rows = chosen.select("slate", "user", "split", "timestamp", "history", "candidates", "target_rank").iter_rows(named=True)
    return [Slate(**row, bins=bins[row["slate"]]) for row in rows]


def top_categories(history: Sequence[int], catalog: Catalog, count: int) -> list[str]:
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
    categories = "".join(f" {word}" for word in top_categories(slate.history, catalog, options.top_categories))
    candidates = "".join(
        f" {' '.join(feature_tokens(bins))}{letter}{item_text(item, catalog, options.titles)}"
        for letter, item, bins in zip(letters(len(slate.candidates)), slate.candidates, slate.bins, strict=True)
    )
    # Closing the block in the prompt is what makes the model answer at once; it is never asked to "not think".
    opening = THINK if reasoning else THINK + THINK_END
    return f"{USER}history:{history} taste:{categories} candidates:{candidates}{ASSISTANT}{opening}"


def trace_text(slate: Slate, catalog: Catalog, options: PromptParams, relevances: Sequence[int], linked: int, best: Sequence[str]) -> str:
    """A trace in the three steps of GR2: the pattern of the history, the candidate most linked to it, then the match of each candidate.

    relevances: one of 0..31 a candidate, in incoming order. linked: the candidate (incoming rank) named in step 2, with its
    co-occurrence. best: feature words of the strongest candidate that speak for it most. All cited words are in the prompt.
    """
    categories = "".join(f" {word}" for word in top_categories(slate.history, catalog, options.top_categories))
    names = letters(len(slate.candidates))
    link = f" co{slate.bins[linked][0]}{names[linked]}{catalog.sids[slate.candidates[linked]]}"
    match = "".join(f"{name} s{relevance}" for name, relevance in zip(names, relevances, strict=True))
    first = order_of(relevances)[0]
    reason = f"{names[first]}{''.join(f' {word}' for word in best)}{catalog.sids[slate.candidates[first]]}"
    return f"{STEP_PATTERN}{categories}{STEP_LINK}{link}{STEP_MATCH}{match}{STEP_BEST}{reason}"


def answer_text(order: Sequence[int], slate: Slate, catalog: Catalog, relevances: Sequence[int] | None = None) -> str:
    """order: incoming ranks, best first. After reasoning each SID is led by its relevance and letter, the words that find it."""
    names = letters(len(slate.candidates))
    words = [f" s{relevances[rank]}{names[rank]}" if relevances else "" for rank in order]
    return "".join(word + catalog.sids[slate.candidates[rank]] for word, rank in zip(words, order, strict=True)) + END


def order_of(relevances: Sequence[int]) -> list[int]:
    """Incoming ranks by falling relevance; equals keep the incoming order."""
    return sorted(range(len(relevances)), key=lambda rank: (-relevances[rank], rank))


def break_ties(relevances: Sequence[int], utilities: Sequence[float]) -> list[int]:
    """Relevance levels in the order of `utilities` (ties: incoming order), all different, as near to `relevances` (0..31, in the same
    order) as one sweep from the best down can keep them.

    Two candidates of one level would make the answer depend on which of them has been named already, which is far harder to learn than
    "the next level below" (docs/training.md).
    """
    order = sorted(range(len(relevances)), key=lambda rank: (-utilities[rank], rank))
    untied = [0] * len(relevances)
    above = RELEVANCE_LEVELS
    for position, rank in enumerate(order):
        below = len(order) - 1 - position  # candidates that still need a lower level each
        above = max(min(relevances[rank], above - 1), below)
        untied[rank] = above
    return untied


def template_words() -> list[str]:
    """Every word of the layout, for a vocabulary learnt from scratch: each must be one token."""
    features = [f" {feature}{level}" for feature in FEATURES for level in range(10)]
    relevances = [f" s{relevance}" for relevance in range(RELEVANCE_LEVELS)]
    layout = ["history:", " taste:", " candidates:", " 1", " pattern:", " 2", " link:", " 3", " match:", " best", "title:", "item:"]
    return [*features, *relevances, *LETTERS, *layout]


def without_reasoning(prompt: str, answer: str) -> tuple[str, str]:
    """The same example for a model that must answer at once: an empty think block, and an answer of bare SIDs."""
    return prompt + THINK_END, re.sub(rf" s\d+ [A-Z](?={re.escape(SID_BEGIN)})", "", answer)
