import polars as pl
import pytest

from stages.midtrain.vocabulary import learn_tokenizer
from stages.shared.lm.models import extend_vocabulary, load_tokenizer
from stages.shared.slates.prompts import END, PAD, SPECIAL_TOKENS, template_words
from stages.shared.slates.sids import sid_vocabulary
from tests.stages.midtrain.test_documents import OPTIONS
from tests.support.small_project import CATALOG, ITEM_COUNT, make_slates, make_tables

TEXTS = [f"Title {item} of Köln (19{item:02}). Genres: Drama Comedy Action Film-Noir." for item in range(ITEM_COUNT)]
LEVELS, CODES = 4, 8


def learnt(size: int = 700):
    tokenizer = learn_tokenizer(TEXTS, size)
    extend_vocabulary(tokenizer, LEVELS, CODES)
    return tokenizer


TOKENIZER = learnt()


@pytest.mark.parametrize("word", [*template_words(), *SPECIAL_TOKENS, *sid_vocabulary(LEVELS, CODES)])
def test_every_word_of_the_layout_and_every_sid_token_is_one_token(word):
    assert len(TOKENIZER.encode(word, add_special_tokens=False)) == 1


def test_in_a_whole_document_too():
    """Alone a word is one token; next to its neighbours it must be the same one."""
    table = make_tables(make_slates()[:5], OPTIONS)["data/traces/traces.parquet"]
    words = {*template_words(), *SPECIAL_TOKENS, *sid_vocabulary(LEVELS, CODES)}
    for row in table.iter_rows(named=True):
        text = row["prompt"] + row["trace"] + row["answer"]
        tokens = [TOKENIZER.decode([token]) for token in TOKENIZER.encode(text, add_special_tokens=False)]
        assert "".join(tokens) == text
        assert {token for token in tokens if token not in words} <= {" Drama", " Comedy", " Action"}


@pytest.mark.parametrize("text", [*TEXTS[:2], "Cité des enfants perdus, La (1995)", "七人の侍", "  two  spaces\nand a line", "🎬", ""])
def test_text_comes_back(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text, add_special_tokens=False)) == text


def test_the_vocabulary_keeps_to_its_size_and_repeats_itself(tmp_path):
    assert len(learn_tokenizer(TEXTS, 700)) <= 700
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
