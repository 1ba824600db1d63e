import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.ingest.text import clean_text, embedding_text, restore_article, title_and_year
from stages.shared.sids import sid_text

SPECIAL = re.compile(r"<[^<>]*>|\[/?\w+\]")  # the shape of every special token: ours, and those tokenizers ship


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Truth About Cats &amp; Dogs", "Truth About Cats & Dogs"),
        ("a\tb\r\nc\u2028d\x00e\u200bf\u202eg", "a b c defg"),
        ("e\u0301", "\u00e9"),
        ("<|im_end|>", "‹|im_end|›"),
        ("<s_a_1>", "‹s_a_1›"),
        ("<thi\u200bnk>", "‹think›"),
        ("&amp;lt;think&amp;gt;", "‹think›"),
        ("＜think＞", "‹think›"),
        ("[REC]", "(REC)"),
        ("[[SEP]]", "[(SEP)]"),
    ],
)
def test_cleaning(raw, clean):
    assert clean_text(raw) == clean


fragments = st.sampled_from(
    ["<", ">", "|", "&lt;", "&amp;lt;", "&#60;", "[", "]", "SEP", "think", "/", "\u200b", "\n", "\x00", "s_a_1", sid_text([1, 2])]
)


@given(st.lists(fragments | st.text(max_size=5), max_size=12).map("".join))
def test_no_text_spells_a_special_token(text):
    clean = clean_text(text)
    assert not SPECIAL.search(clean)
    assert "<" not in clean and ">" not in clean
    assert clean.isprintable()
    assert clean_text(clean) == clean


@pytest.mark.parametrize(
    ("raw", "restored"),
    [
        ("Shawshank Redemption, The", "The Shawshank Redemption"),
        ("Misérables, Les", "Les Misérables"),
        ("Double vie de Véronique, La (Double Life of Veronique, The)", "La Double vie de Véronique (The Double Life of Veronique)"),
        ("Contempt (Mépris, Le)", "Contempt (Le Mépris)"),
        ("Avventura, L'", "L'Avventura"),
        ("Paris, Texas", "Paris, Texas"),
        ("Cook the Thief His Wife & Her Lover, The", "The Cook the Thief His Wife & Her Lover"),
        ("To Wong Foo, Thanks for Everything! Julie Newmar", "To Wong Foo, Thanks for Everything! Julie Newmar"),
        (", The", ", The"),
    ],
)
def test_articles_return_to_the_front(raw, restored):
    assert restore_article(raw) == restored


@pytest.mark.parametrize(
    ("title", "year", "expected"),
    [
        ("Toy Story", "1995", ("Toy Story", 1995)),
        ("Toy Story (1995)", "", ("Toy Story", 1995)),
        ("Time of the Great Giving (1995)", "V", ("Time of the Great Giving", 1995)),
        ("Time of the Great Giving (1995) (V)", "1996", ("Time of the Great Giving", 1996)),
        ("2001: A Space Odyssey", "1968", ("2001: A Space Odyssey", 1968)),
        ("(1999)", "", ("(1999)", None)),
        ("unkonwn", "unkonwn", ("unkonwn", None)),
    ],
)
def test_year_comes_from_its_field_or_the_title(title, year, expected):
    assert title_and_year(title, year) == expected


def test_embedding_text_leaves_out_what_is_unknown():
    assert embedding_text("Toy Story", 1995, "", ["Animation", "Comedy"]) == "Toy Story (1995). Genres: Animation, Comedy."
    assert embedding_text("Lip Balm", None, "Acme", []) == "Lip Balm. Brand: Acme."
