"""The layout, word for word. After a change on purpose: python -m tests.stages.shared.slates.test_prompts rewrites the golden files."""

from pathlib import Path

import polars as pl
import pytest

from stages.ingest.build.text import clean_text
from stages.shared.core.errors import StageError
from stages.shared.core.schemas import SLATES
from stages.shared.slates.candidate_features import CANDIDATE_FEATURES, FEATURES, feature_tokens
from stages.shared.slates.prompts import (
    LETTERS,
    SPECIAL_TOKENS,
    THINK_END,
    Catalog,
    PromptParams,
    Slate,
    answer_text,
    letters,
    load_slates,
    order_of,
    slate_prompt,
    template_words,
    top_categories,
    trace_text,
    without_reasoning,
)
from stages.shared.slates.sids import sid_text
from tests.support.tiny_models import CODEBOOK, LEVELS, tiny_tokenizer

GOLDEN = Path(__file__).parent / "golden"
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
RELEVANCE_LEVELS = [4, 15, 0]


def layouts() -> dict[str, str]:
    """File name -> its text, one document a line group."""
    prompt = slate_prompt(SLATE, CATALOG, PromptParams(history=3))
    trace = trace_text(SLATE, CATALOG, PromptParams(history=3), RELEVANCE_LEVELS, linked=0, best=["ca8", "sc8"])
    return {
        "prompt.txt": prompt,
        "prompt_titles.txt": slate_prompt(SLATE, CATALOG, PromptParams(history=2, top_categories=1, titles=True)),
        "prompt_no_reasoning.txt": slate_prompt(SLATE, CATALOG, PromptParams(history=3), reasoning=False),
        "trace.txt": trace,
        "answer.txt": answer_text(order_of(RELEVANCE_LEVELS), SLATE, CATALOG),
        "answer_led.txt": answer_text(order_of(RELEVANCE_LEVELS), SLATE, CATALOG, RELEVANCE_LEVELS),
    }


@pytest.mark.parametrize("name", layouts())
def test_layout_is_the_golden_one(name):
    assert layouts()[name] == (GOLDEN / name).read_text(encoding="utf-8")


def test_whatever_a_trace_cites_stands_in_the_prompt():
    made = layouts()
    for word in ["co7", "ca8", "sc8", *(CATALOG.sids[item] for item in SLATE.candidates if CATALOG.sids[item] in made["trace.txt"])]:
        assert word in made["prompt.txt"] and word in made["trace.txt"] + made["answer.txt"]


def test_nothing_tells_the_target():
    """The same slate with another target reads the same."""
    other = Slate(**{**SLATE.__dict__, "target_rank": 2, "user": 9, "timestamp": 5})
    assert slate_prompt(other, CATALOG, PromptParams()) == slate_prompt(SLATE, CATALOG, PromptParams())


def test_without_reasoning_agrees_with_the_prompt_made_so():
    made = layouts()
    prompt, answer = without_reasoning(made["prompt.txt"], made["answer_led.txt"])
    assert prompt == made["prompt_no_reasoning.txt"] == made["prompt.txt"] + THINK_END
    assert answer == made["answer.txt"]


def test_every_word_of_the_layout_is_one_token():
    tokenizer = tiny_tokenizer()
    assert all(len(tokenizer.encode(word, add_special_tokens=False)) == 1 for word in template_words())
    features = feature_tokens([9] * len(FEATURES))
    assert len(tokenizer.encode("".join(f" {word}" for word in features), add_special_tokens=False)) == len(FEATURES)


def test_a_title_cannot_spell_a_special_token():
    tokenizer = tiny_tokenizer()
    special = {*SPECIAL_TOKENS, *(token for token in tokenizer.get_added_vocab())}
    nasty = clean_text("".join(sorted(special)) + " &lt;|end|&gt; ＜think＞")
    titles = [nasty, *CATALOG.titles[1:4], nasty, nasty, nasty, nasty]
    catalog = Catalog(CATALOG.sids, titles, [[nasty] for _ in titles])
    options = PromptParams(titles=True)
    ids = {token: number for token, number in tokenizer.get_vocab().items() if token in special}

    def specials(of: Catalog) -> list[int]:
        return [token for token in tokenizer.encode(slate_prompt(SLATE, of, options), add_special_tokens=False) if token in ids.values()]

    assert specials(catalog) == specials(CATALOG)
    assert nasty in slate_prompt(SLATE, catalog, options)


def test_taste_is_the_commonest_categories_ties_by_name():
    assert top_categories([0, 1, 2, 3], CATALOG, 3) == ["Action", "Comedy", "Animation"]
    assert top_categories([], CATALOG, 3) == []


def test_more_candidates_than_letters():
    assert len(letters(len(LETTERS))) == len(set(LETTERS))
    with pytest.raises(StageError, match=r"retrieve\.candidates"):
        letters(len(LETTERS) + 1)


def test_slates_come_by_time_with_their_own_features():
    rows = [(7, 1, 0, 50, "train", [1], [2, 3], [0.5, 0.1], 3, 1), (8, 2, 0, 40, "train", [0], [4, 5], [0.5, 0.1], 4, 0)]
    rows += [(9, 2, 1, 60, "train", [0], [4, 5], [0.5, 0.1], 6, -1), (10, 2, 2, 70, "test", [0], [4, 5], [0.5, 0.1], 4, 0)]
    slates = pl.DataFrame([(*row, -1, "", []) for row in rows], schema=SLATES, orient="row")
    feature_table = [
        (slate, rank, 0, *[0.0] * len(FEATURES), *[slate * 10 + rank] * len(FEATURES)) for slate in (8, 7, 9, 10) for rank in (1, 0)
    ]
    loaded = load_slates(slates, pl.DataFrame(feature_table, schema=CANDIDATE_FEATURES, orient="row"), "train")
    assert [slate.slate for slate in loaded] == [8, 7]
    assert loaded[0].bins == [[80] * len(FEATURES), [81] * len(FEATURES)]
    assert (loaded[1].candidates, loaded[1].target_rank, loaded[1].history) == ([2, 3], 1, [1])
    changed = slates.with_columns(provenance=pl.Series(["injected", "permuted", "", ""]))
    assert load_slates(changed, pl.DataFrame(feature_table, schema=CANDIDATE_FEATURES, orient="row"), "train") == loaded, (
        "marked slates are for training"
    )


def test_sids_of_the_test_catalog_fit_its_tokenizer():
    assert len(set(CATALOG.sids)) == len(CATALOG.sids) and LEVELS == 4 and CODEBOOK == 8


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, text in layouts().items():
        (GOLDEN / name).write_text(text, encoding="utf-8")
