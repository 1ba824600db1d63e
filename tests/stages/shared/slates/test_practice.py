import re
from itertools import islice

import numpy as np
import pytest

from stages.shared.slates import practice
from stages.shared.slates.candidate_features import FEATURES
from stages.shared.slates.layouts.chat import ChatLayout
from stages.shared.slates.layouts.chat_trace import SCALE, STEP_ORDER
from stages.shared.slates.layouts.compact import STEP_MATCH
from stages.shared.slates.layouts.marks import THINK_END
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.slate import RELEVANCE_LEVELS, order_of
from tests.stages.shared.slates.test_compact import CATALOG, LAYOUT, SLATE, layout

ITEMS = len(CATALOG.sids)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def text_of(document) -> str:
    return "".join(text for text, _ in document)


@pytest.mark.parametrize("answer", ["letters", "sids"])
@pytest.mark.parametrize("task", ["sorting", "judging"])
def test_the_answer_is_the_order_that_the_relevances_command(task, answer):
    spoken = layout(answer=answer)
    source = (
        practice.sorting_documents(spoken, ITEMS, rng(), 4) if task == "sorting" else practice.judging_documents(spoken, ITEMS, rng(), 2, 4)
    )
    sizes = set()
    for document in islice(source, 40):
        text = text_of(document)
        relevances = spoken.claims(text).relevances
        sizes.add(len(relevances))
        shown = re.findall(r" ([A-Z])[^A-Z]*?(<\|sid_begin\|>.*?<\|sid_end\|>)", text.split("candidates:")[-1].split(" match:")[0])
        names = dict(shown) if answer == "sids" else {letter: f" {letter}" for letter in relevances}
        order = [list(relevances)[rank] for rank in order_of(list(relevances.values()))]
        assert text.split(THINK_END)[1] == "".join(names[letter] for letter in order) + "<|end|>"
    assert sizes == {2, 3, 4}


def test_ties_are_common_in_sorting():
    lists = [
        list(LAYOUT.claims(text_of(one)).relevances.values()) for one in islice(practice.sorting_documents(LAYOUT, ITEMS, rng(), 10), 300)
    ]
    tied = np.mean([len(set(row)) < len(row) for row in lists])
    assert 0.5 < tied < 0.99 and {level for row in lists for level in row} == set(range(RELEVANCE_LEVELS))


def test_a_judging_document_is_the_layout_of_the_other_stages():
    prompt, trace, answer = practice.judging_document(LAYOUT, SLATE)
    relevances = [practice.mean_relevance(bins, RELEVANCE_LEVELS) for bins in SLATE.bins]
    assert prompt == (LAYOUT.prompt(SLATE), 0.0), "the prompt carries no loss"
    assert trace == (LAYOUT.trace(SLATE, relevances), 1.0) and answer == (THINK_END + LAYOUT.answer(SLATE, order_of(relevances)), 1.0)
    at_once = layout(reasoning=False)
    assert practice.judging_document(at_once, SLATE) == [(at_once.prompt(SLATE), 0.0), (at_once.answer(SLATE, order_of(relevances)), 1.0)]


def test_relevances_are_even_shares_and_rise_with_the_features():
    """As even as can be: the sum of six whole numbers has 55 values, the commonest with 5.6 % of the draws."""
    bins = rng().integers(0, 10, size=(20000, len(FEATURES)))
    counts = np.bincount([practice.mean_relevance(row, RELEVANCE_LEVELS) for row in bins.tolist()], minlength=RELEVANCE_LEVELS)
    assert len(counts) == RELEVANCE_LEVELS
    assert np.abs(counts.cumsum() / 20000 - np.arange(1, RELEVANCE_LEVELS + 1) / RELEVANCE_LEVELS).max() < 0.04
    rising = [practice.mean_relevance([level] * len(FEATURES), RELEVANCE_LEVELS) for level in range(10)]
    assert rising == sorted(rising) and rising[0] == 0 and rising[-1] == RELEVANCE_LEVELS - 1


def test_practice_has_the_features_of_its_layout():
    spoken = layout(more_features=["fo", "br"])
    text = text_of(next(practice.judging_documents(spoken, ITEMS, rng(), 2, 4)))
    quotes = spoken.claims(text[text.index(STEP_MATCH) :]).quotes
    assert quotes and all([word[:2] for word in words] == list(spoken.features) for words in quotes.values())


def test_a_catalogue_too_small_for_a_slate_repeats_items():
    slate = practice.made_up_slate(rng(), 3, 2, 5, LAYOUT.features)
    assert (len(slate.history), len(slate.candidates)) == (2, 5) and max(slate.candidates) < 3
    whole = practice.made_up_slate(rng(), 7, 2, 5, LAYOUT.features)
    assert sorted([*whole.history, *whole.candidates]) == list(range(7))


@pytest.mark.parametrize("task", ["sorting", "judging"])
def test_documents_repeat_by_seed(task):
    sources = {
        "sorting": lambda seed: practice.sorting_documents(LAYOUT, ITEMS, rng(seed), 8),
        "judging": lambda seed: practice.judging_documents(LAYOUT, ITEMS, rng(seed), 2, 4),
    }
    first, second, other = (list(islice(sources[task](seed), 20)) for seed in (1, 1, 2))
    assert first == second != other


def test_sorting_in_chat_practises_judging_too():
    """Every relevance follows from what is quoted before it, and it, the fourth step and the answer alone are taught."""
    chat = ChatLayout(CATALOG, PromptParams(layout="chat", history=3, cited=["co", "tr"]))
    for document in islice(practice.sorting_documents(chat, ITEMS, rng(), 8), 20):
        claims = chat.claims(text_of(document))
        assert len(claims.quotes) == len(claims.relevances) > 1
        for name, relevance in claims.relevances.items():
            bins = [int(word[2:]) for word in claims.quotes[name]]
            assert relevance == practice.mean_relevance(bins, len(SCALE))
        taught = [text for text, weight in document if weight]
        assert len(taught) == len(claims.relevances) + 1 and all(text.startswith("relevance ") for text in taught[:-1])
        assert taught[-1].startswith(STEP_ORDER) and THINK_END in taught[-1]
