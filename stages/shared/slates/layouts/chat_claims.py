"""What a text in the layout `chat` claims, and what of that its prompt does not show.

Outside text is always a JSON string (outside_text.py). Strings are taken out first, so a title can claim nothing.
"""

import re
from collections.abc import Sequence, Set

from stages.shared.slates.candidate_features import FEATURES, MORE_FEATURES
from stages.shared.slates.layouts.chat_trace import NOBODY, SCALE, STEP_ORDER, WORDS
from stages.shared.slates.layouts.layout import Claims
from stages.shared.slates.layouts.marks import END
from stages.shared.slates.layouts.outside_text import QUOTED, strings_in, without_strings
from stages.shared.slates.sids import SID_BEGIN, SID_END

_BEGIN, _CLOSE = re.escape(SID_BEGIN), re.escape(SID_END)
_SID = re.compile(rf"{_BEGIN}.*?(?:{_CLOSE}|(?={_BEGIN})|\Z)", re.DOTALL)  # one begun and never closed is cited, and fits nothing
_WHOLE_SID = re.compile(rf"{_BEGIN}.*?{_CLOSE}", re.DOTALL)
_NAMED = re.compile(r"\b[Cc]andidates?\s+([A-Z]\b(?:(?:,\s*(?:and\s+)?|\s+and\s+)[A-Z]\b)*)")
_LETTER = re.compile(r"\b[A-Z]\b")
_FEATURE_OF = {WORDS.get(feature, feature): feature for feature in [*FEATURES, *MORE_FEATURES]}
_LINKED = r"(?: level)?(?: of| at| is|:)? "  # "popularity 9", "a popularity of 9", "popularity is 9"
_FACT = re.compile(rf"\b({'|'.join(map(re.escape, sorted(_FEATURE_OF, key=len, reverse=True)))}){_LINKED}(\d+)\b", re.IGNORECASE)
_PLACED = re.compile(rf"\b({'|'.join(SCALE)}): ({NOBODY}\b|[A-Z]\b(?:, [A-Z]\b)*)")  # of the fourth step: "good: A, F"
_RELEVANCE = re.compile(rf"\brelevance(?: is|:)? ({'|'.join(SCALE)})\b", re.IGNORECASE)
_NUMBERS = dict(zip(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], range(1, 11), strict=True))
_NUMBER = rf"\d+|{'|'.join(_NUMBERS)}"
_COUNT = re.compile(
    rf"\b({_NUMBER}) of (?:the |their |these )?(?:(?:last|latest|most recent|past) )?({_NUMBER}) (?:items?|titles?)\b"
    rf"[^.;\n\"]{{0,40}}? ({QUOTED})",
    re.IGNORECASE,
)
_TYPOGRAPHIC = re.compile(r"[“”„]([^“”„\n]*)[“”]")
_STEP = re.compile(r"(?m)^\s*(?:step )?\d+[.):]|\bstep \d+\b", re.IGNORECASE)
# Marks that close or interrupt thought, in any family's form: angle brackets that outside text cannot hold.
_MARK = re.compile(r"<\|[^<>|]*\|>|</?think>|\[/?THINK\]")


def claims_of(text: str) -> Claims:
    """text: a completion from its first token; without a closed think block all of it is reasoning."""
    thought = re.split(r"</think>|\[/THINK\]|</seed:think>", text.partition(END)[0], maxsplit=1)[0]
    spoken = without_strings(thought)
    letters: list[str] = []
    relevances: dict[str, int] = {}
    quotes: dict[str, list[str]] = {}
    for names, said in _by_candidate(spoken):
        letters += names
        if len(names) > 1:
            continue
        [name] = names
        if found := _RELEVANCE.findall(said):
            relevances[name] = SCALE.index(found[-1].lower())
            # Only a judged candidate is quoted in full; a fact in passing is checked by unfounded_in.
            if words := _facts(said):
                quotes[name] = words
    return Claims(_SID.findall(thought), letters, relevances, quotes, partial=True)


def unfounded_in(
    trace: str, features: Sequence[Sequence[str]], shown_sids: Set[str], strings: Set[str], of_history: Sequence[Sequence[str]]
) -> list[str]:
    """features: the feature words of each candidate, in the order shown; strings: every JSON string of the prompt.

    of_history: categories of the items of the history, oldest first, where the prompt shows them.
    """
    names = [chr(ord("A") + rank) for rank in range(len(features))]
    shown = dict(zip(names, features, strict=True))
    spoken = without_strings(trace)
    problems = [sid for sid in _SID.findall(spoken) if sid not in shown_sids]
    problems += [string for string in strings_in(trace) if string not in strings]
    problems += [said for said in _TYPOGRAPHIC.findall(spoken) if not any(said.strip(" .,") in string for string in strings)]
    problems += [name for names, _ in _by_candidate(spoken) for name in names if name not in shown]
    every = {word for words in features for word in words}
    problems += [word for word in _facts(spoken) if word not in every]
    for named, said in _by_candidate(spoken):
        if len(named) == 1:
            problems += [f"{named[0]} {word}" for word in _facts(said) if word not in shown.get(named[0], [])]
    for said, total, name in _COUNT.findall(trace):
        last = of_history[-_number(total) :] if _number(total) else []
        if len(last) != _number(total) or sum(name in categories for categories in last) != _number(said):
            problems.append(f"{said} of the last {total} items are in {name}")
    problems += _misplaced(spoken)
    rest = _WHOLE_SID.sub("", trace)
    problems += [mark for mark in _MARK.findall(rest)]
    return problems


def other_numbers(trace: str) -> list[int]:
    """Numbers that are no level of evidence, no count that `unfounded_in` checks, and no number of a step."""
    spoken = without_strings(_WHOLE_SID.sub("", _COUNT.sub("", trace)))
    for known in (_FACT, _STEP, _TYPOGRAPHIC):
        spoken = known.sub("", spoken)
    return [int(number) for number in re.findall(r"(?<![\w.])\d+(?!\w)", spoken)]


def _misplaced(spoken: str) -> list[str]:
    """What the fourth step says of the relevances that the third did not, and whom it leaves out."""
    placed = {(name, SCALE.index(level)) for level, names in _PLACED.findall(spoken) for name in _LETTER.findall(names)}
    judged = set(claims_of(spoken).relevances.items())
    left_out = judged - placed if STEP_ORDER in spoken else set()
    return [f"{SCALE[level]}: {name} in step 4" for name, level in sorted(placed ^ judged if placed else left_out)]


def _number(said: str) -> int:
    return int(said) if said.isdecimal() else _NUMBERS[said.lower()]


def _by_candidate(spoken: str) -> list[tuple[list[str], str]]:
    """The letters named at each place where candidates are, and what is said from there to the next such place or the end of the line."""
    found = list(_NAMED.finditer(spoken))
    rows = []
    for place, match in enumerate(found):
        end = found[place + 1].start() if place + 1 < len(found) else len(spoken)
        rows.append((_LETTER.findall(match[1]), spoken[match.end() : end].partition("\n")[0]))
    return rows


def _facts(text: str) -> list[str]:
    """As feature tokens ("co7")."""
    return [f"{_FEATURE_OF[words.lower()]}{level}" for words, level in _FACT.findall(text)]
