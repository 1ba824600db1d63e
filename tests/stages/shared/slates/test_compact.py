"""The layout `compact`, word for word. After a change on purpose: python -m tests.stages.shared.slates.test_compact rewrites the golden
files."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.ingest.build.text import clean_text
from stages.shared.core.errors import StageError
from stages.shared.slates.candidate_features import FEATURES, feature_tokens
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.slates.layouts.compact import CompactLayout
from stages.shared.slates.layouts.marks import LETTERS, SPECIAL_TOKENS, THINK_END, letters
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.sids import SID_BEGIN, sid_text
from stages.shared.slates.slate import RELEVANCE_LEVELS, Catalog, Slate, order_of, permuted
from tests.support.tiny_models import CODEBOOK, LEVELS, tiny_tokenizer

GOLDEN = Path(__file__).parent / "golden/compact"
CATALOG = Catalog(
    [sid_text([item % 8, (item * 3) % 8, (item * 5) % 8, 0]) for item in range(8)],
    ["Toy Story", "GoldenEye", "Four Rooms", "Get Shorty", "Copycat", "Babe", "Mighty Aphrodite", "Seven"],
    [["Animation", "Comedy"], ["Action"], ["Thriller"], ["Action", "Comedy"], ["Crime"], ["Comedy", "Drama"], ["Comedy"], ["Crime"]],
)
SLATE = Slate(
    slate=0,
    user=3,
    split="train",
    timestamp=100,
    history=[0, 1, 2, 3],
    candidates=[4, 5, 6],
    bins=[[7, 3, 5, 6, 2, 9], [1, 0, 8, 4, 4, 8], [0, 0, 0, 9, 1, 0]],
    target_rank=1,
)
RELEVANCES = [4, 15, 4]  # of 24 levels
DIGITS = [4, 8, 4]  # of the ten of `chat`


def layout(**options) -> CompactLayout:
    return CompactLayout(CATALOG, PromptParams(history=3, **options))


LAYOUT = layout()


def texts() -> dict[str, str]:
    """File name -> its text."""
    order = order_of(RELEVANCES)
    return {
        "prompt.txt": LAYOUT.prompt(SLATE),
        "prompt_titles.txt": layout(top_categories=1, titles=True).prompt(SLATE),
        "prompt_no_reasoning.txt": layout(reasoning=False).prompt(SLATE),
        "trace.txt": LAYOUT.trace(SLATE, RELEVANCES),
        "answer.txt": LAYOUT.answer(SLATE, order),
        "answer_sids.txt": layout(answer="sids").answer(SLATE, order),
        "judged.txt": LAYOUT.judged(SLATE, RELEVANCES)[0][0],
        "judged_sids.txt": layout(answer="sids").judged(SLATE, RELEVANCES)[0][0],
    }


@pytest.mark.parametrize("name", texts())
def test_layout_is_the_golden_one(name):
    assert texts()[name] == (GOLDEN / name).read_text(encoding="utf-8")


def test_letters_and_sids_name_the_same_candidates():
    assert dict(zip(LAYOUT.names(SLATE), layout(answer="sids").names(SLATE), strict=True)) == {
        letter: CATALOG.sids[item] for letter, item in zip(letters(3), SLATE.candidates, strict=True)
    }


@given(st.permutations(range(3)), st.lists(st.integers(0, RELEVANCE_LEVELS - 1), min_size=3, max_size=3))
def test_a_trace_is_founded_in_its_prompt_and_read_back(order, relevances):
    shown = permuted(SLATE, order)
    trace = LAYOUT.trace(shown, relevances)
    assert LAYOUT.unfounded(trace, shown) == []
    claims = LAYOUT.claims(trace + THINK_END + LAYOUT.answer(shown, order_of(relevances)))
    assert claims.relevances == dict(zip("ABC", relevances, strict=True)) and claims.sids == []
    assert claims.quotes == {name: shown.words(rank) for rank, name in enumerate("ABC")}
    assert set(claims.letters) == {"A", "B", "C"}


def test_a_feature_that_is_left_out_is_in_no_prompt_and_no_trace():
    spoken = layout(less_features=["re"])
    slate = replace(SLATE, features=spoken.features, bins=[bins[:4] + bins[5:6] for bins in SLATE.bins])
    trace = spoken.trace(slate, RELEVANCES)
    assert spoken.features == ("co", "tr", "ca", "po", "sc") and not re.search(r" re\d", spoken.prompt(slate) + trace)
    assert spoken.unfounded(trace, slate) == [] and spoken.claims(trace).quotes["A"] == slate.words(0)
    assert not any(word.startswith(" re") for word in spoken.words())
    with pytest.raises(
        StageError, match=r"slate 0 has the features co, tr, ca, po, re, sc, and prompt.more_features asks for co, tr, ca, po, sc"
    ):
        spoken.prompt(SLATE)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (["re", "re"], "less_features names a feature twice: re, re"),
        (["fo"], "less_features: fo is none of the six"),
        (["co", "tr", "ca", "po", "re", "sc"], "less_features leaves out all six"),
    ],
)
def test_what_cannot_be_left_out(features, message):
    with pytest.raises(ValueError, match=message):
        PromptParams(less_features=features)


def test_more_features_are_shown_quoted_and_read_back():
    spoken = layout(more_features=["fo", "br"])
    slate = replace(SLATE, bins=[[*bins, 9, rank] for rank, bins in enumerate(SLATE.bins)], features=spoken.features)
    assert spoken.features == (*FEATURES, "fo", "br") and {" fo0", " br9"} <= set(spoken.words()) - set(LAYOUT.words())
    assert spoken.prompt(slate) == re.sub(r"(sc\d)", r"\1 fo9 br_", LAYOUT.prompt(SLATE)).replace("br_", "br0", 1).replace(
        "br_", "br1", 1
    ).replace("br_", "br2", 1)
    trace = spoken.trace(slate, RELEVANCES)
    assert spoken.quote(slate, 1) == " B co1 tr0 ca8 po4 re4 sc8 fo9 br1 B" and spoken.quote(slate, 1) + " s15" in trace
    assert spoken.unfounded(trace, slate) == []
    claims = spoken.claims(trace + THINK_END)
    assert claims.quotes == {name: slate.words(rank) for rank, name in enumerate("ABC")}
    assert claims.relevances == dict(zip("ABC", RELEVANCES, strict=True))
    assert "br3" in spoken.unfounded(trace.replace("br1", "br3"), slate)
    context, short = spoken.short_form(slate, RELEVANCES)
    assert context.count(" fo9") == 3 and short in trace
    with pytest.raises(StageError, match=r"slate 0 has the features co, tr, .*sc, and prompt.more_features asks for .*br; rerun"):
        spoken.prompt(SLATE)


def test_a_feature_is_not_added_twice():
    with pytest.raises(ValueError, match="more_features names a feature twice: fo, fo"):
        PromptParams(more_features=["fo", "fo"])


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (" A co7", " A co8", ["co8", "A co8 tr3 ca5 po6 re2 sc9"]),
        (" B co1 tr0 ca8 po4 re4 sc8", " B co0 tr0 ca0 po9 re1 sc0", ["B co0 tr0 ca0 po9 re1 sc0"]),  # of C: shown, but not of B
        (" 2 match: A", " 2 match: A co0 tr0 ca0 po9 re1 sc0 A", ["A co0 tr0 ca0 po9 re1 sc0"]),  # and A's own behind it
        (" B s15", " D s15", ["D"]),
        (" 1 pattern:", f" 1 pattern:{CATALOG.sids[7]}", [CATALOG.sids[7]]),
        (" 1 pattern:", f" 1 pattern:{CATALOG.sids[4]}", []),
        (" 1 pattern:", " 1 pattern:<|end|>", ["<|end|>"]),
        (" 1 pattern:", " 1 pattern:<|sid_begin|><s_a_0>", [SID_BEGIN]),
        (" 1 pattern:", " 1 pattern: decoy4 scope co a B movie", []),
    ],
)
def test_unfounded_names_what_was_invented(old, new, found):
    trace = LAYOUT.trace(SLATE, RELEVANCES)
    assert old in trace
    names = LAYOUT.unfounded(trace.replace(old, new), SLATE)
    assert set(found) <= set(names) and bool(names) == bool(found)


def test_nothing_tells_the_target():
    """The same slate with another target reads the same."""
    other = replace(SLATE, target_rank=2, user=9, timestamp=5)
    assert LAYOUT.prompt(other) == LAYOUT.prompt(SLATE)


def test_without_reasoning_the_prompt_closes_the_think_block():
    assert layout(reasoning=False).prompt(SLATE) == LAYOUT.prompt(SLATE) + THINK_END


def test_every_word_of_the_layout_is_one_token():
    tokenizer = tiny_tokenizer()
    assert all(len(tokenizer.encode(word, add_special_tokens=False)) == 1 for word in LAYOUT.words())
    features = feature_tokens(tuple(FEATURES), [9] * len(FEATURES))
    assert len(tokenizer.encode("".join(f" {word}" for word in features), add_special_tokens=False)) == len(FEATURES)


def test_a_title_cannot_spell_a_special_token():
    tokenizer = tiny_tokenizer()
    special = {*SPECIAL_TOKENS, *(token for token in tokenizer.get_added_vocab())}
    nasty = clean_text("".join(sorted(special)) + " &lt;|end|&gt; ＜think＞")
    titles = [nasty, *CATALOG.titles[1:4], nasty, nasty, nasty, nasty]
    catalog = Catalog(CATALOG.sids, titles, [[nasty] for _ in titles])
    ids = {token: number for token, number in tokenizer.get_vocab().items() if token in special}

    def specials(of: Catalog) -> list[int]:
        prompt = CompactLayout(of, PromptParams(titles=True)).prompt(SLATE)
        return [token for token in tokenizer.encode(prompt, add_special_tokens=False) if token in ids.values()]

    assert specials(catalog) == specials(CATALOG)
    assert nasty in CompactLayout(catalog, PromptParams(titles=True)).prompt(SLATE)


def test_more_candidates_than_letters():
    assert len(letters(len(LETTERS))) == len(set(LETTERS))
    with pytest.raises(StageError, match=r"retrieve\.candidates"):
        letters(len(LETTERS) + 1)


def test_the_layout_is_the_one_that_the_parameters_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("prompt: {layout: compact, history: 3}\n")
    assert layout_of(CATALOG) == LAYOUT == layout_of(CATALOG, PromptParams(history=3))
    (tmp_path / "params.yaml").write_text("prompt: {layout: chatty}\n")
    with pytest.raises(StageError, match=r"params\.yaml: prompt\.layout: Input should be 'compact' or 'chat'"):
        layout_of(CATALOG)


def test_sids_of_the_test_catalog_fit_its_tokenizer():
    assert len(set(CATALOG.sids)) == len(CATALOG.sids) and LEVELS == 4 and CODEBOOK == 8


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name, text in texts().items():
        (GOLDEN / name).write_text(text, encoding="utf-8")
