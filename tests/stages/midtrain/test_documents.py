import re
from itertools import islice

import numpy as np
import pytest

from stages.midtrain import documents
from stages.shared.slates.candidate_features import FEATURES, feature_tokens
from stages.shared.slates.prompts import END, RELEVANCE_LEVELS, THINK, THINK_END, PromptParams, answer_text, order_of, slate_prompt
from stages.shared.slates.sids import SID_BEGIN, SID_END
from tests.support.small_project import CATALOG, make_slates

OPTIONS = PromptParams()
SIDS = re.compile(re.escape(SID_BEGIN) + ".*?" + re.escape(SID_END))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def text_of(document) -> str:
    return "".join(text for text, _ in document)


def judged(text: str) -> dict[str, int]:
    """Letter -> relevance, as the match step says."""
    return {
        letter: int(relevance) for letter, relevance in re.findall(r" ([A-Z]) s(\d+)", text[text.index(" match:") :].split(THINK_END)[0])
    }


@pytest.mark.parametrize("made", ["skill", "ordering"])
def test_the_answer_is_the_order_that_the_relevances_command(made):
    source = (
        documents.full_layout_documents(CATALOG, OPTIONS, rng(), 8) if made == "skill" else documents.ordering_documents(CATALOG, rng(), 8)
    )
    for document in islice(source, 30):
        text = text_of(document)
        shown = re.findall(r" ([A-Z])(" + SIDS.pattern + ")", text[: text.index(" match:")].split("candidates:")[1].split(THINK)[0])
        sids, relevances = dict(shown), judged(text)
        assert list(sids) == list(relevances) and set(relevances.values()) <= set(range(RELEVANCE_LEVELS))
        order = [list(relevances)[rank] for rank in order_of(list(relevances.values()))]
        expected = "".join(f" s{relevances[letter]} {letter}{sids[letter]}" for letter in order) + END
        assert text.split(THINK_END)[1] == expected


def test_a_skill_document_is_the_layout_of_the_other_stages():
    for slate in make_slates()[:5]:
        document = documents.full_layout_document(slate, CATALOG, OPTIONS)
        relevances = documents.mean_relevances(slate.bins)
        assert document[0] == (slate_prompt(slate, CATALOG, OPTIONS), 0.0), "the prompt carries no loss"
        assert text_of(document).endswith(THINK_END + answer_text(order_of(relevances), slate, CATALOG, relevances))


def test_relevances_are_even_shares_and_rise_with_the_features():
    """As even as can be: the sum of six whole numbers has 55 values, the commonest with 5.6 % of the draws."""
    bins = rng().integers(0, 10, size=(20000, len(FEATURES)))
    counts = np.bincount([documents.mean_relevance(row) for row in bins.tolist()], minlength=RELEVANCE_LEVELS)
    assert len(counts) == RELEVANCE_LEVELS
    assert np.abs(counts.cumsum() / 20000 - np.arange(1, RELEVANCE_LEVELS + 1) / RELEVANCE_LEVELS).max() < 0.04
    rising = [documents.mean_relevance([level] * len(FEATURES)) for level in range(10)]
    assert rising == sorted(rising) and rising[0] == 0 and rising[-1] == RELEVANCE_LEVELS - 1


def test_a_reading_documents_relevances_follow_from_its_features():
    for document in islice(documents.reading_documents(rng(), 6), 20):
        text = text_of(document)
        told = re.findall(r"((?: [a-z]{2}\d){6}) ([A-Z])", text.split(" match:")[0])
        expected = documents.mean_relevances([[int(word[2:]) for word in words.split()] for words, _ in told])
        assert list(judged(text).values()) == expected and len(set(expected)) == len(expected)
        assert [word for words, _ in told for word in words.split()][: len(FEATURES)] == feature_tokens(
            [int(w[2:]) for w in told[0][0].split()]
        )
        assert all(weight == (1.0 if re.fullmatch(r" s\d+", part) else 0.0) for part, weight in document)


def test_sequences_are_windows_of_real_base_sequences():
    sequences = [[0, 1, 2, 3, 4], [7], [9, 8]]
    allowed = {
        "".join(CATALOG.sids[item] for item in own[s : s + 3]) for own in sequences if len(own) > 1 for s in range(max(1, len(own) - 2))
    }
    found = {document[1][0] for document in islice(documents.sequence_documents(sequences, CATALOG, rng(), 3), 200)}
    assert found == allowed


def test_captions_go_both_ways_and_only_the_second_half_counts():
    captions = list(islice(documents.caption_documents(CATALOG, rng()), 100))
    ways = {text_of(document).split(":")[0] for document in captions}
    assert len(ways) == 2 and all([weight for _, weight in document] == [0.0, 1.0] for document in captions)
    for document in captions:
        item = CATALOG.sids.index(SIDS.search(text_of(document)).group())
        assert CATALOG.titles[item] in text_of(document) and document[1][0].endswith(END)


SOURCES = {
    "sequence": lambda seed: documents.sequence_documents([[0, 1, 2, 3]], CATALOG, rng(seed), 2),
    "caption": lambda seed: documents.caption_documents(CATALOG, rng(seed)),
    "ordering": lambda seed: documents.ordering_documents(CATALOG, rng(seed), 8),
    "reading": lambda seed: documents.reading_documents(rng(seed), 8),
    "skill": lambda seed: documents.full_layout_documents(CATALOG, OPTIONS, rng(seed), 8),
}


@pytest.mark.parametrize("name", SOURCES)
def test_documents_repeat_by_seed(name):
    first, second, other = (list(islice(SOURCES[name](seed), 20)) for seed in (1, 1, 2))
    assert first == second != other
