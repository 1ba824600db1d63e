import polars as pl
import pytest

from stages.midtrain.vocabulary import learn_tokenizer
from stages.shared.core.errors import StageError
from stages.shared.lm.models import extend_vocabulary, load_tokenizer
from stages.shared.slates.layouts.marks import END, PAD, SPECIAL_TOKENS
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.sids import sid_vocabulary
from tests.support.small_project import CATALOG, ITEM_COUNT, make_slates, make_tables
from tests.support.tiny_models import LAYOUT_WORDS

TEXTS = [f"Title {item} of Köln (19{item:02}). Genres: Drama Comedy Action Film-Noir." for item in range(ITEM_COUNT)]
LEVELS, CODES = 4, 8


def learnt(size: int = 700):
    tokenizer = learn_tokenizer(TEXTS, size, LAYOUT_WORDS)
    extend_vocabulary(tokenizer, LEVELS, CODES)
    return tokenizer


TOKENIZER = learnt()


@pytest.mark.parametrize("word", [*LAYOUT_WORDS, *SPECIAL_TOKENS, *sid_vocabulary(LEVELS, CODES)])
def test_every_word_of_the_layout_and_every_sid_token_is_one_token(word):
    assert len(TOKENIZER.encode(word, add_special_tokens=False)) == 1


def test_in_a_whole_document_too():
    """Alone a word is one token; next to its neighbours it must be the same one."""
    table = make_tables(make_slates()[:5], PromptParams())["data/traces/traces.parquet"]
    words = {*LAYOUT_WORDS, *SPECIAL_TOKENS, *sid_vocabulary(LEVELS, CODES)}
    for row in table.iter_rows(named=True):
        text = row["prompt"] + row["trace"] + row["answer"]
        tokens = [TOKENIZER.decode([token]) for token in TOKENIZER.encode(text, add_special_tokens=False)]
        assert "".join(tokens) == text
        assert {token for token in tokens if token not in words} <= {" Drama", " Comedy", " Action"}


@pytest.mark.parametrize("text", [*TEXTS[:2], "Cité des enfants perdus, La (1995)", "七人の侍", "  two  spaces\nand a line", "🎬", ""])
def test_text_comes_back(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text, add_special_tokens=False)) == text


def test_the_vocabulary_keeps_to_its_size_and_repeats_itself(tmp_path):
    assert len(learn_tokenizer(TEXTS, 700, LAYOUT_WORDS)) <= 700
    TOKENIZER.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    for again in (learnt(), loaded):
        assert again.get_vocab() == TOKENIZER.get_vocab()
        assert again.encode(TEXTS[0] + CATALOG.sids[3] + " co7 s12" + END) == TOKENIZER.encode(
            TEXTS[0] + CATALOG.sids[3] + " co7 s12" + END
        )
    assert (loaded.pad_token, loaded.eos_token) == (PAD, END)


def test_item_text_cannot_spell_a_special_token_by_its_parts():
    ids = pl.Series(TOKENIZER.encode("< |end| > <|en d|>", add_special_tokens=False))
    assert not ids.is_in(TOKENIZER.convert_tokens_to_ids(SPECIAL_TOKENS)).any()


def test_a_word_of_the_layout_that_is_split_is_an_error():
    with pytest.raises(StageError, match=r"midtrain\.text_vocabulary is too small: '.+' is not one token"):
        learn_tokenizer(TEXTS, 280, LAYOUT_WORDS)


def test_a_word_without_its_space_is_one_token_among_texts_that_make_the_space_common():
    texts = [f"title {word} the time to history" for word in ("a", "b", "c")] * 400
    tokenizer = learn_tokenizer(texts, 1024, LAYOUT_WORDS)
    assert [len(tokenizer.encode(word, add_special_tokens=False)) for word in ("title:", "history:", "item:")] == [1, 1, 1]
