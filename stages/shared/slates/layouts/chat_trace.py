"""The sentences of a trace in the layout `chat`. Which form a sentence takes is drawn with the slate as the seed.

Every form says of a candidate what its judgement follows from right before the judgement (docs/training.md: the model inside).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.shared.slates.layouts.marks import LETTERS
from stages.shared.slates.slate import Slate

# In the prompt's evidence and in traces: the words before a feature's level. A feature without an entry goes by its short name.
WORDS = {
    "co": "co-occurrence",
    "tr": "succession",
    "ca": "shared category",
    "po": "popularity",
    "re": "recency",
    "sc": "retriever score",
    "fo": "next kind",
    "br": "shared brand",
}
MEANINGS = {
    "co": "co-occurrence (taken by users who took the last items)",
    "tr": "succession (comes soon after the last items)",
    "ca": "shared category (with the last items)",
    "po": "popularity",
    "re": "recency (how much of its use is recent)",
    "sc": "retriever score",
    "fo": "next kind (how well its kind follows those of the last items)",
    "br": "shared brand (with the last items)",
}
FOLLOWS = "tr"
PATTERNS = ["{common} {lead} the history", "{common} {stand} out in the history", "The user mostly took items in {common}"]
LATEST = [" The latest item is {sid}.", " The history ends with {sid}.", " The last item taken is {sid}."]
CONTINUES = ["{who} {goes} on with {category}.", "{category} is continued by {who}.", "{who} {shares} {category} with the history."]
NONE_CONTINUES = ["No candidate continues {category}.", "{category} is continued by no candidate."]
COMPLEMENTS = ["Candidate {letter} complements the last items: {fact}.", "A complement may be candidate {letter}: {fact}."]
MATCHES = [
    "\nCandidate {name}: {facts}, so ",
    "\nCandidate {name} shows {facts}, which makes ",
    "\nFor candidate {name} there is {facts}, hence ",
    "\nCandidate {name} has {facts}, which gives ",
]
MATCHES_WITHOUT_FACTS = ["\nCandidate {name} is in {categories}, so ", "\nFor candidate {name} there is {categories}, hence "]
REASONS = [
    "Candidate {letter} fits the history best: {facts}.",
    "Candidate {letter} comes first, with {facts}.",
    "The strongest evidence is that of candidate {letter}: {facts}.",
]
REASONS_WITHOUT_FACTS = ["Candidate {letter} fits the history best.", "Candidate {letter} continues the history most closely."]
STEP_PATTERN, STEP_CATEGORY, MATCH, STEP_ORDER = "1. Pattern:", "\n2. Category:", "\n3. Match:", "\n4. Order:"
# Of relevance, from the lowest. Words, as digits are evidence already, and harder to tell apart (docs/smollm2.md).
SCALE = ("faint", "poor", "weak", "low", "fair", "medium", "good", "strong", "high", "top")
NOBODY = "none"
COUNTED = 3  # last items that are counted over: a prompt that is cut to its budget keeps them
CITED_IN_ANSWER = 2
WEIGHED = 2  # pieces of evidence for a candidate, and as many against it


@dataclass(frozen=True)
class Shown:
    """What a trace may draw on, as the prompt shows it; categories are quoted strings.

    common: the commonest categories of the history, as the prompt names them; of_history, of_candidates: categories by item, empty where
    the prompt shows none; latest: the SID of the last item taken; levels: by candidate those of `features`, empty without evidence;
    cited: the features that are quoted of each candidate before its relevance.
    """

    common: list[str]
    of_history: list[list[str]]
    of_candidates: list[list[str]]
    latest: str
    levels: list[list[int]]
    features: tuple[str, ...]
    cited: tuple[str, ...]


def facts(features: Sequence[str], levels: Sequence[int]) -> str:
    return ", ".join(f"{WORDS.get(feature, feature)} {level}" for feature, level in zip(features, levels, strict=True))


def opening(slate: Slate, shown: Shown) -> str:
    """Steps 1 and 2, up to the first candidate of step 3."""
    rng = np.random.default_rng([slate.slate, *slate.candidates])
    return _pattern(rng, shown) + STEP_CATEGORY + _category(rng, shown) + MATCH


def quote(slate: Slate, rank: int, sid: str, shown: Shown, weighed: str = "") -> str:
    """What comes before the relevance of a candidate. sid: named beside its letter, or empty; weighed: what follows its evidence."""
    rng = np.random.default_rng([slate.slate, slate.candidates[rank]])
    name = f"{_letter(rank)} {sid}" if sid else _letter(rank)
    if shown.levels:
        levels = dict(zip(shown.features, shown.levels[rank], strict=True))
        quoted = facts(shown.cited, [levels[feature] for feature in shown.cited])
        return _choose(rng, MATCHES).format(name=name, facts=quoted + weighed)
    categories = shown.of_candidates[rank]
    return _choose(rng, MATCHES_WITHOUT_FACTS).format(name=name, categories=_listed(categories) if categories else "no known category")


def relevance(rank: int, level: int) -> str:
    """The letter right after the level is what the fourth step looks up (docs/smollm2.md)."""
    return f"relevance {SCALE[level]} ({_letter(rank)})."


def conclusion(relevances: Sequence[int], order: Sequence[int]) -> str:
    """Step 4, a counting sort: the levels from the top, each with its candidates in the answer's order. A pretrained model learns to look
    up which letters stood beside a level long before it learns to find the highest of ten."""
    at: list[list[str]] = [[] for _ in SCALE]
    for rank in order:
        at[relevances[rank]].append(_letter(rank))
    said = [f" {word}: {', '.join(names) or NOBODY}" for word, names in zip(SCALE, at, strict=True)]
    return STEP_ORDER + ";".join(reversed(said)) + "."


def weighing(words: Sequence[str], weights: Sequence[float]) -> str:
    """What speaks for and against a candidate, the strongest first: for the evidence `words`, weights above and below 0."""
    by_weight = sorted(range(len(words)), key=lambda place: -weights[place])
    supports = [words[place] for place in by_weight if weights[place] > 0][:WEIGHED]
    objects = [words[place] for place in reversed(by_weight) if weights[place] < 0][:WEIGHED]
    said = [f"for it {_speaks(supports)} {_listed(supports)}"] if supports else ["nothing speaks for it"]
    said += [f"against it {_speaks(objects)} {_listed(objects)}"] if objects else []
    return f" ({'; '.join(said)})" if supports or objects else ""


def explanation(slate: Slate, rank: int, shown: Shown, cited: Sequence[str] = ()) -> str:
    """Of the answer: why the candidate at `rank` comes first. No quoted string, which a JSON string would have to escape.

    cited: the features that it names; else those of the highest levels among what the trace quotes.
    """
    rng = np.random.default_rng([slate.slate, slate.candidates[rank], 1])
    if not shown.levels:
        return _choose(rng, REASONS_WITHOUT_FACTS).format(letter=_letter(rank))
    words = facts(shown.features, shown.levels[rank]).split(", ")
    quoted = [shown.features.index(feature) for feature in shown.cited]
    strongest = [shown.features.index(feature) for feature in cited] or sorted(quoted, key=lambda place: -shown.levels[rank][place])
    strongest = strongest[:CITED_IN_ANSWER]
    return _choose(rng, REASONS).format(letter=_letter(rank), facts=_listed([words[place] for place in sorted(strongest)]))


def _pattern(rng: np.random.Generator, shown: Shown) -> str:
    latest = _choose(rng, LATEST).format(sid=shown.latest)
    if not shown.common:
        return STEP_PATTERN + latest
    last = shown.of_history[-COUNTED:]
    counts = {name: sum(name in names for names in last) for name in shown.common}
    name = max(counts, key=lambda each: counts[each])
    several = len(shown.common) > 1
    verbs = {"lead": "lead" if several else "leads", "stand": "stand" if several else "stands"}
    text = f" {_choose(rng, PATTERNS).format(common=_listed(shown.common), **verbs)}"
    if counts[name] and len(last) > 1:
        text += f", and {counts[name]} of the last {len(last)} items {'is' if counts[name] == 1 else 'are'} in {name}"
    return f"{STEP_PATTERN}{text}.{latest}"


def _category(rng: np.random.Generator, shown: Shown) -> str:
    """Who continues the leading category, and which of the others follows the last items most."""
    sharing = [rank for rank, names in enumerate(shown.of_candidates) if shown.common and shown.common[0] in names]
    sentences = []
    if sharing:
        single = len(sharing) == 1
        who = ("candidate " if single else "candidates ") + _listed([_letter(rank) for rank in sharing])
        form = _choose(rng, CONTINUES)
        verbs = {"goes": "goes" if single else "go", "shares": "shares" if single else "share"}
        sentences.append(form.format(who=who, category=shown.common[0], **verbs))
    elif shown.common and any(shown.of_candidates):
        sentences.append(_choose(rng, NONE_CONTINUES).format(category=shown.common[0]))
    others = [rank for rank in range(len(shown.levels)) if rank not in sharing]
    if others and FOLLOWS in shown.features:
        place = shown.features.index(FOLLOWS)
        best = max(others, key=lambda rank: shown.levels[rank][place])
        # One that follows nothing complements nothing.
        if level := shown.levels[best][place]:
            sentences.append(_choose(rng, COMPLEMENTS).format(letter=_letter(best), fact=f"{WORDS[FOLLOWS]} {level}"))
    return "".join(f" {sentence[0].upper()}{sentence[1:]}" for sentence in sentences or ["No candidate stands out."])


def _speaks(words: Sequence[str]) -> str:
    return "speaks" if len(words) == 1 else "speak"


def _choose(rng: np.random.Generator, forms: Sequence[str]) -> str:
    return forms[int(rng.integers(len(forms)))]


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _letter(rank: int) -> str:
    return LETTERS[rank].strip()
