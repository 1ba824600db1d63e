"""What a trace cites must be in its prompt: SIDs, feature tokens, candidates' letters; and no special token of the layout."""

import re

from stages.shared.slates.candidate_features import FEATURES
from stages.shared.slates.prompts import SPECIAL_TOKENS
from stages.shared.slates.sids import SID_BEGIN, SID_END

_SID = re.compile(re.escape(SID_BEGIN) + r".*?" + re.escape(SID_END))
_FEATURE = re.compile(r"\b(?:" + "|".join(FEATURES) + r")\d+")
_LETTER = re.compile(r"\b[A-Z](?= (?:s|" + "|".join(FEATURES) + r")\d|" + re.escape(SID_BEGIN) + ")")  # as a candidate's name


def cited(text: str) -> list[str]:
    """Every SID, feature word and letter of a candidate in `text`."""
    return [*_SID.findall(text), *_FEATURE.findall(text), *_LETTER.findall(text)]


def uncited(trace: str, prompt: str) -> list[str]:
    """What `trace` says that `prompt` does not: features, letters and SIDs invented, marks of half a SID, special tokens of the layout."""
    known = set(cited(prompt))
    invented = [word for word in cited(trace) if word not in known]
    # Whole SIDs are taken out first; what is left of SID_BEGIN and SID_END after that is half a SID.
    rest = _SID.sub("", trace)
    return [*invented, *(token for token in [*SPECIAL_TOKENS, SID_BEGIN, SID_END] if token in rest)]
