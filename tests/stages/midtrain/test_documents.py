import re
from itertools import islice

import numpy as np
import pytest

from stages.midtrain import documents
from stages.shared.slates.layouts.marks import END
from stages.shared.slates.sids import SID_BEGIN, SID_END
from stages.shared.slates.slate import top_categories
from tests.support.small_project import CATALOG

SIDS = re.compile(re.escape(SID_BEGIN) + ".*?" + re.escape(SID_END))
WORDING = documents.CompactWording(CATALOG)
SEQUENCES = [[0, 1, 2, 3, 4], [7], [9, 8]]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def text_of(document) -> str:
    return "".join(text for text, _ in document)


def test_sequences_are_windows_of_real_base_sequences():
    allowed = {
        "".join(CATALOG.sids[item] for item in taken[start : start + 3])
        for taken in SEQUENCES
        if len(taken) > 1
        for start in range(max(1, len(taken) - 2))
    }
    windows = {document[1][0] for document in islice(documents.sequence_documents(SEQUENCES, CATALOG, rng(), 3), 200)}
    assert windows == allowed


def test_captions_go_both_ways_and_only_the_second_half_counts():
    captions = list(islice(documents.caption_documents(WORDING, len(CATALOG.sids), rng()), 100))
    ways = {text_of(document).split(":")[0] for document in captions}
    assert len(ways) == 2 and all([weight for _, weight in document] == [0.0, 1.0] for document in captions)
    for document in captions:
        item = CATALOG.sids.index(SIDS.search(text_of(document)).group())
        assert CATALOG.titles[item] in text_of(document) and document[1][0].endswith(END)


def test_preferences_are_the_commonest_categories_of_the_titles_told():
    for (context, unweighted), (categories, weight) in islice(documents.preference_documents(SEQUENCES, WORDING, rng()), 30):
        taken = [CATALOG.titles.index(title) for title in re.findall(r"Title \d+ of Köln", context)]
        assert (unweighted, weight) == (0.0, 1.0) and any(taken == row[i : i + 5] for row in SEQUENCES for i in range(len(row)))
        assert categories == "".join(f" {word}" for word in top_categories(taken, CATALOG, 2)) + END


def test_personas_interleave_sids_with_the_words_of_their_items():
    for document in islice(documents.persona_documents(SEQUENCES, WORDING, rng()), 30):
        taken = [CATALOG.sids.index(sid) for sid in SIDS.findall(text_of(document))]
        assert any(taken == row[i : i + 5] for row in SEQUENCES for i in range(len(row)))
        told = "".join(CATALOG.sids[item] + documents.caption(item, CATALOG) for item in taken)
        liked = "".join(f" {word}" for word in top_categories(taken, CATALOG, 2)) + END
        assert document == [("<|user|>text:", 0.0), (told, 1.0), ("<|assistant|>", 0.0), (liked, 1.0)]


SOURCES = {
    "sequence": lambda seed: documents.sequence_documents(SEQUENCES, CATALOG, rng(seed), 2),
    "caption": lambda seed: documents.caption_documents(WORDING, len(CATALOG.sids), rng(seed)),
    "persona": lambda seed: documents.persona_documents(SEQUENCES, WORDING, rng(seed)),
    "preference": lambda seed: documents.preference_documents(SEQUENCES, WORDING, rng(seed)),
}


@pytest.mark.parametrize("name", SOURCES)
def test_documents_repeat_by_seed(name):
    first, second, other = (list(islice(SOURCES[name](seed), 20)) for seed in (1, 1, 2))
    assert first == second != other
